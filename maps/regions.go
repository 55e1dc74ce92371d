package maps

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// elementBytes is the distance of two elements of `maglev` in memory: the kernel
// rounds the 4 bytes of each up to 8.
const elementBytes = 8

// span is a piece of the array `maglev`, in elements.
type span struct{ offset, length uint32 }

func (s span) end() uint32 { return s.offset + s.length }

// holes are the free pieces of an array, ascending, never adjacent.
type holes []span

// newHoles is all of size but what is taken. The taken may be in any order.
func newHoles(size uint32, taken []span) holes {
	sorted := slices.SortedFunc(slices.Values(taken), func(a, b span) int { return cmp.Compare(a.offset, b.offset) })
	var free holes
	next := uint32(0)
	for _, s := range sorted {
		if s.offset > next {
			free = append(free, span{next, s.offset - next})
		}
		next = max(next, s.end())
	}
	if next < size {
		free = append(free, span{next, size - next})
	}
	return free
}

// take cuts length elements out of the first hole that has them.
func (h *holes) take(length uint32) (span, bool) {
	for i, hole := range *h {
		switch {
		case hole.length == length:
			*h = slices.Delete(*h, i, i+1)
		case hole.length > length:
			(*h)[i] = span{hole.offset + length, hole.length - length}
		default:
			continue
		}
		return span{hole.offset, length}, true
	}
	return span{}, false
}

// largest is the length of the largest hole.
func (h holes) largest() uint32 {
	var length uint32
	for _, hole := range h {
		length = max(length, hole.length)
	}
	return length
}

// regionWords reads a region. Out of bounds it is nil, which is no service's.
func (t *Tables) regionWords(s span) []uint32 {
	buffer := make([]byte, elementBytes*s.length)
	if _, err := t.memory.ReadAt(buffer, int64(s.offset)*elementBytes); err != nil {
		return nil
	}
	words := make([]uint32, s.length)
	for i := range words {
		words[i] = binary.NativeEndian.Uint32(buffer[elementBytes*i:])
	}
	return words
}

// writeRegion fills a region that no service points to.
func (t *Tables) writeRegion(w *writer, what string, s span, words []uint32) error {
	buffer := make([]byte, elementBytes*s.length)
	for i, word := range words {
		binary.NativeEndian.PutUint32(buffer[elementBytes*i:], word)
	}
	return w.write(tableMaglev, what, t.maps.Maglev.MaxEntries(), func() error {
		_, err := t.memory.WriteAt(buffer, int64(s.offset)*elementBytes)
		return err
	})
}

// strayRegions finds what is written outside the regions of services: left by an
// agent that ended between two writes, or before a grace period did. Free elements
// are zero, so a run of others is all there is to look for.
func (t *Tables) strayRegions(taken []span) ([]span, error) {
	const chunk = 1 << 16
	var strays []span
	buffer := make([]byte, elementBytes*chunk)
	for _, hole := range newHoles(t.maps.Maglev.MaxEntries(), taken) {
		for offset := hole.offset; offset < hole.end(); offset += chunk {
			part := buffer[:elementBytes*min(chunk, hole.end()-offset)]
			if _, err := t.memory.ReadAt(part, int64(offset)*elementBytes); err != nil {
				return nil, fmt.Errorf("maps: read table %q: %w", tableMaglev, err)
			}
			for i := 0; i < len(part); i += elementBytes {
				if binary.NativeEndian.Uint32(part[i:]) == 0 {
					continue
				}
				at := offset + uint32(i/elementBytes)
				if last := len(strays) - 1; last >= 0 && strays[last].end() == at {
					strays[last].length++
				} else {
					strays = append(strays, span{at, 1})
				}
			}
		}
	}
	return strays, nil
}
