package maps

// Prefixes is prefixes, as pairs of first and last port.
func Prefixes(first, last uint16) (blocks [][2]uint16) {
	for _, block := range prefixes(first, last) {
		blocks = append(blocks, [2]uint16{block.first, block.last()})
	}
	return blocks
}

// TakeRegion takes length elements out of an array in which pieces (offset and length)
// are taken.
func TakeRegion(size uint32, taken [][2]uint32, length uint32) (offset uint32, ok bool) {
	var spans []span
	for _, piece := range taken {
		spans = append(spans, span{piece[0], piece[1]})
	}
	free := newHoles(size, spans)
	region, ok := free.take(length)
	return region.offset, ok
}
