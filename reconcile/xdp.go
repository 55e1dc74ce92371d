package reconcile

// LeaveXDP has the Machine behind a device get its packets by tcx until its port is set
// again, and says whether it got them by XDP so far. It does not wait.
func (l *Loop) LeaveXDP(ifindex uint32) (left bool) {
	l.mu.Lock()
	for id, port := range l.ports {
		if port.Ifindex == ifindex && port.XDP {
			port.XDP, left = false, true
			l.ports[id] = port
		}
	}
	l.mu.Unlock()
	if left {
		l.Recompile()
	}
	return left
}

// XDPDevices are the devices of ports whose Machines get their packets by XDP.
func (l *Loop) XDPDevices() (ifindexes []uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, port := range l.ports {
		if port.XDP {
			ifindexes = append(ifindexes, port.Ifindex)
		}
	}
	return ifindexes
}
