package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// common are parameters of many operations, which the introduction explains.
var common = []string{"wait", "fly-machine-lease-nonce"}

func (p *page) operation(o operation) error {
	fmt.Fprintf(p, "\n### %s\n\n`%s %s`\n", plain(o.Summary), o.method, o.path)
	if strings.HasPrefix(o.Summary, oursMark) {
		p.WriteString("\n*Not in the Machines API.*\n")
	}
	if o.Description != "" {
		fmt.Fprintf(p, "\n%s\n", line(o.Description))
	}
	p.parameters(o)
	if o.RequestBody != nil {
		if err := p.body(o.RequestBody.Value); err != nil {
			return err
		}
	}
	p.answers(o)
	return p.errors(o)
}

// parameters is a table of those that are this operation's own, and a line of the
// common ones.
func (p *page) parameters(o operation) {
	var shared []string
	var rows []string
	for _, ref := range o.parameters {
		q := ref.Value
		if slices.Contains(common, q.Name) {
			shared = append(shared, "`"+q.Name+"`")
			continue
		}
		if q.In == "path" {
			continue // the path says it all
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", q.Name, q.In, p.kind(q.Schema), sentences(required(q.Required), line(q.Description), standard(q.Schema.Value))))
	}
	if len(rows) > 0 {
		fmt.Fprintf(p, "\n| parameter | in | type | meaning |\n|---|---|---|---|\n%s\n", strings.Join(rows, "\n"))
	}
	if len(shared) > 0 {
		fmt.Fprintf(p, "\nTakes %s, see [above](#writes).\n", strings.Join(shared, " and "))
	}
}

func required(is bool) string {
	if is {
		return "Required."
	}
	return ""
}

// standard says what counts if a parameter is absent, and its bounds.
func standard(s *openapi3.Schema) string {
	var parts []string
	if s.Min != nil && s.Max != nil {
		parts = append(parts, fmt.Sprintf("%v to %v.", *s.Min, *s.Max))
	}
	if s.Default != nil {
		parts = append(parts, fmt.Sprintf("Default `%v`.", s.Default))
	}
	return strings.Join(parts, " ")
}

// sentences joins those that are not empty, each with a stop at its end.
func sentences(parts ...string) string {
	var kept []string
	for _, s := range parts {
		if s == "" {
			continue
		}
		if !strings.HasSuffix(s, ".") {
			s += "."
		}
		kept = append(kept, s)
	}
	return strings.Join(kept, " ")
}

func (p *page) body(b *openapi3.RequestBody) error {
	ref := b.Content["application/json"].Schema
	if ref == nil || ref.Ref == "" {
		return fmt.Errorf("its body has no named schema")
	}
	may := ""
	if !b.Required {
		may = ", which may be left out"
	}
	fmt.Fprintf(p, "\nBody%s:\n\n", may)
	if ref.Value.Description != "" {
		fmt.Fprintf(p, "%s\n\n", line(ref.Value.Description))
	}
	p.members(ref.Value)
	return nil
}

// answers says what comes back when all is well.
func (p *page) answers(o operation) {
	for _, code := range slices.Sorted(maps.Keys(o.Responses.Map())) {
		if code == "default" {
			continue
		}
		response := o.Responses.Value(code).Value
		fmt.Fprintf(p, "\nAnswer: **%s** %s", code, line(*response.Description))
		for _, media := range slices.Sorted(maps.Keys(response.Content)) {
			if media == "application/json" {
				fmt.Fprintf(p, " %s", p.kind(response.Content[media].Schema))
			} else {
				fmt.Fprintf(p, " `%s`", media)
			}
		}
		p.WriteString("\n")
	}
}

// errors says which refusals are this operation's own.
func (p *page) errors(o operation) error {
	extension, ok := o.Extensions["x-errors"]
	if !ok {
		return nil
	}
	raw, err := json.Marshal(extension)
	if err != nil {
		return err
	}
	var reasons map[string]string
	if err := json.Unmarshal(raw, &reasons); err != nil {
		return fmt.Errorf("x-errors: %w", err)
	}
	p.WriteString("\nErrors:\n\n")
	for _, code := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(p, "- **%s** %s\n", code, reasons[code])
	}
	return nil
}

// name is what a reference leads to, empty if there is none.
func name(ref string) string {
	if ref == "" {
		return ""
	}
	return path.Base(ref)
}

// line is a description on one line of a table.
func line(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(plain(text)), " "), "|", `\|`)
}
