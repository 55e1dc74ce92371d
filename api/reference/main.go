// The program reference writes docs/api.md from openapi.yaml, from the directory
// api/. It knows the document and nothing of the code behind it.
package main

import (
	"fmt"
	"os"
)

func main() {
	page, err := reference("openapi.yaml")
	if err == nil {
		err = os.WriteFile("../docs/api.md", []byte(page), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
