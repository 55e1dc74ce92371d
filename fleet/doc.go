// Package fleet makes hosts of strangers: a certificate authority of the fleet, a
// certificate for each host, which renews itself, invitations, and the service that a
// host joins by and later calls the others at.
//
// The order at an agent's start:
//
//	f, err := fleet.Open(config)              // what this host remembers
//	if !f.Joined() && token != "" {
//		err = f.Join(ctx, token, …)           // asks a host of the fleet for a certificate
//	}
//	if f.Joined() {
//		client = state.OpenRemote(f.Endpoints(), f.ClientTLS())
//	} else {
//		…                                     // the store is here, or an operator's
//	}
//	changed, err := f.Found(ctx, store)       // the authority and a certificate for this host
//	f.KeepCertificate(ctx, store)             // a task
//	f.Serve(ctx, listener, ServiceConfig{…})  // a task
//	f.Transport(CallConfig{…})                // to the services of the others
package fleet
