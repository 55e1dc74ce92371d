// Package nettest builds hosts and Machines out of namespaces, for tests and for
// the demo: a network namespace of its own, temporary directories, and in it a real
// agent process of this same program. Everything it makes is gone after Close.
package nettest
