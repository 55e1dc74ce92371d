// Package maps shows the router's kernel tables as typed Go. A Want is everything
// that should be in them; Sync reads what is there, and makes the difference with
// as few writes as it takes, in an order that is right after every single one:
//
//   - What a key is about to point at is complete before the key is written:
//     backends, then their Maglev region, then the service, then its address; a
//     Machine's port comes last, for nothing may ask before all can be answered.
//   - What goes, goes in the reverse order.
//   - A device whose number was given to another Machine is cut off first, so that
//     no key ever leads to the device of another network.
//   - What a packet in flight may still read (regions, backends) is reused only
//     after a grace period, a backend moreover only when it has no live flow.
//
// Nothing but a few points in time is remembered between two syncs: an agent that
// was killed between any two writes goes on by reading the kernel.
package maps
