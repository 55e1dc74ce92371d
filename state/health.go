package state

// Health is how the store does.
type Health struct {
	Serving    bool  // the server has not stopped
	Leader     bool  // without one it takes no writes
	Revision   int64 // the latest
	Bytes      int64 // size of the database
	UsedBytes  int64 // of it, in use; the rest is free for new revisions
	LimitBytes int64 // at which it takes no more writes, 0: unknown
}

// Health reads it from the server in this process, without a request.
func (e *Embedded) Health() Health {
	server := e.server.Server
	select {
	case <-server.StopNotify():
		return Health{}
	default:
	}
	backend := server.Backend()
	return Health{
		Serving:    true,
		Leader:     server.Leader() != 0,
		Revision:   server.KV().Rev(),
		Bytes:      backend.Size(),
		UsedBytes:  backend.SizeInUse(),
		LimitBytes: server.Cfg.QuotaBackendBytes,
	}
}
