"""Pure decisions: match, balance, retry, classify, judge."""
