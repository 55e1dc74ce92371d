// Package nearest finds the name that was probably meant where there is none as it
// was written.
package nearest

import "github.com/agnivade/levenshtein"

// Of is the known name that is nearest to another one, the first of several, or ""
// if none is near: two letters, or a third of them, may differ, yet not all.
func Of(name string, known []string) string {
	best, least := "", max(2, len(name)/3)+1
	for _, candidate := range known {
		d := levenshtein.ComputeDistance(name, candidate)
		if d < min(least, len(candidate)) {
			best, least = candidate, d
		}
	}
	return best
}
