// Package reconcile turns what the store says into what the kernel's tables hold.
// Compile is pure: a snapshot and the local ports in, a maps.Want out. The Loop feeds
// it the latest of both, syncs the tables, and says which revision they have.
package reconcile
