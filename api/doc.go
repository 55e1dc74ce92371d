// Package api is the control API: openapi.yaml says what it is, openapi.gen.go is
// the server's and the client's half made from it, and the rest of the package
// is what stands behind each operation.
//
// The way of a request: Server.Handler (bounded, logged) → checkBody (content
// type, unknown members) → openapi.gen.go (decodes) → the method of operations
// that has the operation's name → Store.
package api

//go:generate go tool oapi-codegen -config oapi-codegen.yaml openapi.yaml
//go:generate go run ./reference
