package machine_test

// agentMain is the agent process of tests that kill it.
func agentMain() bool { return false }
