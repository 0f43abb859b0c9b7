"""What is kept of verified tokens: never more than told, and what is used stays."""

from __future__ import annotations

import random
import threading

from meshlib.policy.tokencache import TokenCache


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    cache: TokenCache[int] = TokenCache(most=20)
    cache.put(b"used", 1)
    cache.put(b"unused", 2)
    for number in range(100):
        cache.put(b"%d" % number, number)
        assert cache.get(b"used") == 1
    assert cache.get(b"unused") is None


def test_it_is_bounded_in_tokens_and_in_bytes() -> None:
    many: TokenCache[int] = TokenCache(most=20)
    for number in range(1000):
        many.put(b"%d" % number, number)
    assert 10 <= len(many) <= 20
    large: TokenCache[int] = TokenCache(most=1000, most_bytes=1000)
    for number in range(1000):
        large.put(b"%0100d" % number, number)
    assert 5 <= len(large) <= 10


def test_no_token_lies_in_memory() -> None:
    cache: TokenCache[int] = TokenCache()
    cache.put(b"secret", 1)
    assert all(b"secret" not in key for key in cache._young)


def test_threads_never_get_what_is_anothers() -> None:
    cache: TokenCache[bytes] = TokenCache(most=10)
    wrong: list[bytes] = []

    def use(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(3000):
            token = b"%d" % chance.randrange(30)
            found = cache.get(token)
            if found is None:
                cache.put(token, token)
            elif found != token:
                wrong.append(token)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) <= 14  # four threads may each be at the border of the halves
