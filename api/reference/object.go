package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// elsewhere are schemas that the page explains where they are used: all bodies of
// requests, and what is no object.
func elsewhere(name string, s *openapi3.Schema) bool {
	return strings.HasSuffix(name, "Request") && name != "MachineEventRequest" || !s.Type.Is("object") || len(s.Properties) == 0
}

// object is the section of one.
func (p *page) object(name string, ref *openapi3.SchemaRef) {
	if elsewhere(name, ref.Value) {
		return
	}
	fmt.Fprintf(p, "\n### %s\n\n", name)
	if strings.HasPrefix(ref.Value.Description, oursMark) {
		p.WriteString("*Not in the Machines API.*\n\n")
	}
	if ref.Value.Description != "" {
		fmt.Fprintf(p, "%s\n\n", line(ref.Value.Description))
	}
	p.members(ref.Value)
}

// members is a table of those of an object: the required ones first, then by name.
func (p *page) members(s *openapi3.Schema) {
	names := slices.SortedFunc(maps.Keys(s.Properties), func(a, b string) int {
		if d := slices.Index(s.Required, a) - slices.Index(s.Required, b); slices.Contains(s.Required, a) && slices.Contains(s.Required, b) {
			return d
		}
		if slices.Contains(s.Required, a) != slices.Contains(s.Required, b) {
			if slices.Contains(s.Required, a) {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	p.WriteString("| member | type | required | meaning |\n|---|---|---|---|\n")
	for _, name := range names {
		member, is := s.Properties[name], ""
		if slices.Contains(s.Required, name) {
			is = "yes"
		}
		fmt.Fprintf(p, "| `%s` | %s | %s | %s |\n", name, p.kind(member), is, p.meaning(member))
	}
}

// meaning of a member: its own, else that of its type if it has no section.
func (p *page) meaning(ref *openapi3.SchemaRef) string {
	s := ref.Value
	text := line(s.Description)
	if ref.Ref != "" && !elsewhere(name(ref.Ref), s) {
		text = "" // said there
	}
	if strings.HasPrefix(s.Description, oursMark) && text != "" {
		text = "*Ours:* " + text
	}
	return text
}

// kind is the type of something as a reader knows it, with a link to what it is.
func (p *page) kind(ref *openapi3.SchemaRef) string {
	s := ref.Value
	switch {
	case len(s.AllOf) == 1:
		return p.kind(s.AllOf[0])
	case ref.Ref != "" && !elsewhere(name(ref.Ref), s):
		return fmt.Sprintf("[%s](#%s)", name(ref.Ref), strings.ToLower(name(ref.Ref)))
	case len(s.OneOf) > 0:
		return strings.ToLower(name(ref.Ref))
	case len(s.Enum) > 0:
		var values []string
		for _, v := range s.Enum {
			values = append(values, fmt.Sprintf("`%v`", v))
		}
		return strings.Join(values, " ")
	case s.Type.Is("array"):
		return "list of " + p.kind(s.Items)
	case s.Type.Is("object") && s.AdditionalProperties.Schema != nil:
		return "object of " + p.kind(s.AdditionalProperties.Schema)
	case s.Format == "date-time":
		return "time"
	}
	return strings.Join(s.Type.Slice(), " ")
}
