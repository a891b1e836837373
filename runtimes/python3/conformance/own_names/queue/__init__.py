OWN = "my queue"
