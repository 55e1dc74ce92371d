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
