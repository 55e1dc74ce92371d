package api

import "reflect"

// Bodies is the operations that have a body, by route.
func Bodies() map[string]reflect.Type {
	kinds := map[string]reflect.Type{}
	for route, b := range bodies {
		kinds[route] = b.kind
	}
	return kinds
}

// BodyIsOptional is whether an operation may come without.
func BodyIsOptional(route string) bool { return bodies[route].optional }

// CheckBody is what is done with a body before it is decoded.
func CheckBody(route string, raw []byte) error { return bodies[route].check("application/json", raw) }

// Keep stores a configuration and shows it again.
func Keep(c MachineConfig) (MachineConfig, error) {
	kept, err := configIn(c)
	return configOut(kept), err
}
