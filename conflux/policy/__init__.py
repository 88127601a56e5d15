"""The policy of a realm: a rule file that says which flows may pass, how it is read, judged and checked."""
