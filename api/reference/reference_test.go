package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The page is what the document says.
func TestPageIsGenerated(t *testing.T) {
	made, err := reference("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != made {
		t.Error("docs/api.md is not what openapi.yaml makes: run go generate ./api")
	}
}

// Every link of the page leads to one of its headings, and no two headings are the same.
func TestLinksLeadSomewhere(t *testing.T) {
	made, err := reference("../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for l := range strings.SplitSeq(made, "\n") {
		if title := strings.TrimLeft(l, "#"); title != l && strings.HasPrefix(title, " ") {
			at := anchor(title[1:])
			if headings[at] {
				t.Errorf("the heading %q is there twice", title[1:])
			}
			headings[at] = true
		}
	}
	links := regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(made, -1)
	if len(links) == 0 {
		t.Error("the page has no links")
	}
	for _, link := range links {
		if !headings[link[1]] {
			t.Errorf("nothing is at #%s", link[1])
		}
	}
}
