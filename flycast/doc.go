// Package flycast decides where the flows of a Flycast address go, and ends them
// when that place is gone: the Maglev tables, the choice of backends, the pace of
// expiry, and the packets that tell a client that its backend is no more.
package flycast
