// Package state is what is wanted of a network and what is known of it: records of
// apps, Machines, networks and VIPs in etcd, the rules that every write of them
// keeps, and a snapshot of all that follows the writes.
//
// A snapshot is of one revision, and so is that of a partial Store, which watches only
// what concerns its host: before it makes one it asks the store which revision that is
// at, and waits for what its watches have not delivered up to there. What it was current
// up to, though nothing was sent, is Store.Reached; Store.Reach asks for it. Nothing else
// says how far a Store is.
package state
