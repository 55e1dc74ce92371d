// Package e2e holds tests of the whole system: a real agent on a host made of
// namespaces, everything asked of it by its API, and its end looked at from
// outside: the kernel's tables, the store, what is left on the host.
package e2e
