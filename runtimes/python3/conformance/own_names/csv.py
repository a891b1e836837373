OWN = "my csv"
