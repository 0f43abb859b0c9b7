"""Who this process is: keys, certificates, trust bundles, SPIFFE IDs, rotation."""
