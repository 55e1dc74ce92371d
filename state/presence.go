package state

// presence is the record that a host's lease keeps.
type presence struct {
	// Session is random, of one run of the host's agent.
	Session string `json:"session"`
}

// mustBeAlone refuses a host that joins as one whose lease another agent keeps alive
// from elsewhere. The same endpoint is the same host, whose agent began again.
func (t *transaction) mustBeAlone(record Host, h NewHost, session string) error {
	if h.Endpoint == "" || record.Endpoint == "" || h.Endpoint == record.Endpoint {
		return nil
	}
	alive, found, err := load[presence](t, keyAlive(record.ID))
	if err != nil || !found || alive.Value.Session == session {
		return err
	}
	return refuse(Conflict, "host", "host %v is at work at %s, and this host, at %s, says that it is the same one: if it is, and has moved, wait until the old lease is over and try again; else its state directory is a copy, and it must start with an empty one", record.ID, record.Endpoint, h.Endpoint)
}
