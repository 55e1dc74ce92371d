package bpf

import (
	"os"
	"strings"
	"testing"
)

// Every drop reason has a section of its own in the documentation, in the order
// of the enum, and every section is about a reason that exists.
func TestDropReasonsAreExplained(t *testing.T) {
	page, err := os.ReadFile("../docs/drop-reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	sections := map[string]string{}
	for _, section := range strings.Split(string(page), "\n### ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		explained = append(explained, name)
		sections[name] = text
	}
	reasons := DropReasons()
	for i, reason := range reasons {
		name := reason.String()
		text, ok := sections[name]
		if !ok {
			t.Errorf("docs/drop-reasons.md has no section %q: write what it means, who causes it, what to do", name)
			continue
		}
		if len(explained) > i && explained[i] != name {
			t.Errorf("section %d is %q, expected %q, as in enum drop_reason", i, explained[i], name)
		}
		for _, part := range []string{"**Who causes it**", "**What to do**"} {
			if !strings.Contains(text, part) {
				t.Errorf("the section %q does not say %s", name, part)
			}
		}
	}
	if len(explained) != len(reasons) {
		t.Errorf("%d sections for %d reasons", len(explained), len(reasons))
	}
}
