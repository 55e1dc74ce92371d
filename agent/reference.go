package agent

import (
	"fmt"
	"io"
	"strings"
)

// WriteReference writes docs/configuration.md.
func WriteReference(w io.Writer) {
	fmt.Fprint(w, `# Configuration of an agent

<!-- Made from the program by "make generate"; change it there. -->

Each setting is a flag of `+"`sixpn agent`"+`, an environment variable and a key of one YAML file. Where several name a setting, the flag counts before the variable, the variable before the file, the file before the default.

The file is `+"`"+defaultFile("NAME")+"`"+` of the agent's name, so `+"`"+defaultFile(fields[0].def)+"`"+` for an agent without one, if it exists; `+"`--config FILE`"+` or `+"`"+envPrefix+"CONFIG`"+` names another, which must exist. `+"`sixpn agent reset`"+` reads the same file, so that it finds what the agent made.

A setting that does not exist, or whose value cannot work, is refused with exit status 2 before anything is touched; the message says where it stands, and what was expected. An empty variable, and a key without a value, count as not given.
`+"`sixpn agent --check-config`"+` only checks, and prints what is in force and where it comes from.

`+"`SIGHUP`"+` has the file read again. What is marked "live" changes at once; for the rest the log says what waits for a restart, which interrupts no traffic. A file that is wrong by then changes nothing, and the log says why.

| key | flag | environment | default | |
|---|---|---|---|---|
`)
	for _, f := range fields {
		kind, def := f.of(&Config{}).Type(), f.derived
		if def == "" {
			def = "`" + f.def + "`"
		}
		doc := f.doc
		if f.live {
			doc += " (live)"
		}
		fmt.Fprintf(w, "| `%s` | `--%s` %s | `%s` | %s | %s |\n", f.key, f.flag(), kind, f.env(), def, doc)
	}
	fmt.Fprint(w, `
A *duration* has its unit: `+"`500ms`, `30s`, `2h4m`"+`. A *list* is one of YAML in the file, and has commas between its members elsewhere; its flag may be given several times. *regions* are a list of mappings in the file.

An example with every kind of value:

`+"```yaml\n"+exampleFile()+"```\n")
}

// exampleFile is a file that works, with the examples of the table.
func exampleFile() string {
	var s strings.Builder
	for _, f := range fields {
		if f.example == "" || f.alone {
			continue
		}
		v := f.of(&Config{})
		if err := v.Set(f.example); err != nil {
			panic(fmt.Sprintf("the example of %s is wrong: %v", f.key, err)) // a test sees it first
		}
		switch v := v.(type) {
		case *list:
			fmt.Fprintf(&s, "%s:\n", f.key)
			for _, one := range *v.to {
				fmt.Fprintf(&s, "  - %q\n", one)
			}
		case *regionList:
			fmt.Fprintf(&s, "%s:\n", f.key)
			for _, r := range *v.to {
				fmt.Fprintf(&s, "  - code: %s\n    name: %s\n    latitude: %v\n    longitude: %v\n", r.Code, r.Name, r.Latitude, r.Longitude)
			}
		case text:
			if strings.HasPrefix(f.example, "[") {
				fmt.Fprintf(&s, "%s: %q\n", f.key, f.example)
				continue
			}
			fmt.Fprintf(&s, "%s: %s\n", f.key, f.example)
		default:
			fmt.Fprintf(&s, "%s: %s\n", f.key, f.example)
		}
	}
	return s.String()
}
