// Package state is what is wanted of a network and what is known of it: records of
// apps, Machines, networks and VIPs in etcd, the rules that every write of them
// keeps, and a snapshot of all that follows the writes.
package state
