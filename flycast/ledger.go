package flycast

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	stdmaps "maps"
	"os"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/maps"
)

// Bounds are the most flows that other hosts can have with a seat, by host.
type Bounds map[sixpn.Host]uint32

// Ledger keeps what other hosts were granted of the backends of this one beyond the life
// of an agent. It need not outlive the host's: Machines that start again have new addresses.
type Ledger interface {
	// Read returns what was written last, by seat. Of a seat that is not in it nothing is known.
	Read() (map[maps.Seat]Bounds, error)
	// Write takes all there is now, and what of it differs from before; it is safe from the
	// end of the agent when it returns.
	Write(all, changed map[maps.Seat]Bounds, gone []maps.Seat) error
}

// LedgerError is that a Ledger did not take what a Step had to write before it sends. The
// next Step writes it; until then nobody is granted anything.
type LedgerError struct{ Err error }

func (e *LedgerError) Error() string { return e.Err.Error() }

// Unwrap returns the Ledger's own error.
func (e *LedgerError) Unwrap() error { return e.Err }

// book is what a run knows to be in its Ledger.
type book struct {
	ledger  Ledger
	written map[maps.Seat]Bounds
}

func (b *book) read() (err error) {
	b.written, err = b.ledger.Read()
	return err
}

// write writes what differs.
func (b *book) write(now map[maps.Seat]Bounds) error {
	changed := map[maps.Seat]Bounds{}
	for seat, bounds := range now {
		before, ok := b.written[seat]
		if !ok || !stdmaps.Equal(before, bounds) {
			changed[seat] = bounds
		}
	}
	var gone []maps.Seat
	for seat := range b.written {
		if _, ok := now[seat]; !ok {
			gone = append(gone, seat)
		}
	}
	if len(changed)+len(gone) == 0 {
		return nil
	}
	if err := b.ledger.Write(now, changed, gone); err != nil {
		return err
	}
	b.written = now
	return nil
}

// LedgerFile is a Ledger in a file, which one agent at a time has open. What is appended
// to it survives the agent as soon as it is written: the page cache is the kernel's.
//
// It is a line of text, ledgerMagic and the boot of the host, and records, big endian:
//
//	CRC-32C of the rest 4, bounds 4, seat 21 and its host 4, bounds of host 4 and flows 4
//
// The last record of a seat is true, with 2³²−1 bounds it is forgotten. A record that was
// cut off, by a disk that is full, ends the file: nothing that it allowed was ever sent.
type LedgerFile struct {
	path    string
	magic   string // its first line
	file    *os.File
	size    int64 // of what is whole
	compact int64 // size after it was written anew last
}

const (
	ledgerMagic   = "sixpn shares 1 "
	ledgerGone    = 1<<32 - 1
	recordHeader  = 8
	boundBytes    = 8
	ledgerSeat    = seatBytes + 4
	compactFrom   = 1 << 20 // bytes: a smaller file is not worth it
	compactFactor = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// OpenLedger is the file of one boot of the host, which boot names: what was written in
// another may not have come to the disk. Close it in the end.
func OpenLedger(path, boot string) *LedgerFile {
	return &LedgerFile{path: path, magic: ledgerMagic + boot + "\n"}
}

// Close closes the file. What was written stays.
func (l *LedgerFile) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// Read implements Ledger. A file of another version or boot says nothing of any seat.
func (l *LedgerFile) Read() (map[maps.Seat]Bounds, error) {
	all := map[maps.Seat]Bounds{}
	raw, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("flycast: read the ledger of shares: %w", err)
	}
	if !bytes.HasPrefix(raw, []byte(l.magic)) {
		return all, nil // Write makes it anew
	}
	l.size = int64(len(l.magic))
	for rest := raw[l.size:]; ; {
		seat, bounds, gone, size := readRecord(rest)
		if size == 0 {
			break
		}
		all[seat] = bounds
		if gone {
			delete(all, seat)
		}
		rest, l.size = rest[size:], l.size+int64(size)
	}
	if l.file, err = os.OpenFile(l.path, os.O_RDWR, 0o600); err == nil {
		err = l.file.Truncate(l.size)
	}
	if err != nil {
		return nil, fmt.Errorf("flycast: open the ledger of shares: %w", err)
	}
	l.compact = max(compactFrom, l.size)
	return all, nil
}

// Write implements Ledger.
func (l *LedgerFile) Write(all, changed map[maps.Seat]Bounds, gone []maps.Seat) error {
	if l.file == nil || l.size > compactFactor*l.compact {
		if err := l.writeAnew(all); err != nil {
			return fmt.Errorf("flycast: write the ledger of shares: %w", err)
		}
		return nil
	}
	var raw []byte
	for seat, bounds := range changed {
		raw = appendRecord(raw, seat, bounds, false)
	}
	for _, seat := range gone {
		raw = appendRecord(raw, seat, nil, true)
	}
	if _, err := l.file.WriteAt(raw, l.size); err != nil {
		return fmt.Errorf("flycast: write the ledger of shares: %w", errors.Join(err, l.file.Truncate(l.size)))
	}
	l.size += int64(len(raw))
	return nil
}

// writeAnew leaves only what is true now, in a file that takes the place of the one before.
func (l *LedgerFile) writeAnew(all map[maps.Seat]Bounds) error {
	raw := []byte(l.magic)
	for seat, bounds := range all {
		raw = appendRecord(raw, seat, bounds, false)
	}
	next := l.path + ".new"
	file, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = file.Write(raw); err == nil {
		err = os.Rename(next, l.path)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	err = l.Close()
	l.file, l.size = file, int64(len(raw))
	l.compact = max(compactFrom, l.size)
	return err
}

func appendRecord(raw []byte, seat maps.Seat, bounds Bounds, gone bool) []byte {
	start := len(raw)
	count := uint32(len(bounds))
	if gone {
		count = ledgerGone
	}
	raw = binary.BigEndian.AppendUint32(raw, 0)
	raw = binary.BigEndian.AppendUint32(raw, count)
	raw = appendSeat(raw, seat)
	raw = binary.BigEndian.AppendUint32(raw, uint32(seat.Host))
	for host, most := range bounds {
		raw = binary.BigEndian.AppendUint32(raw, uint32(host))
		raw = binary.BigEndian.AppendUint32(raw, most)
	}
	binary.BigEndian.PutUint32(raw[start:], crc32.Checksum(raw[start+4:], castagnoli))
	return raw
}

// readRecord reads the first record; size 0: there is no whole one.
func readRecord(raw []byte) (seat maps.Seat, bounds Bounds, gone bool, size int) {
	if len(raw) < recordHeader+ledgerSeat {
		return seat, nil, false, 0
	}
	count := int(binary.BigEndian.Uint32(raw[4:]))
	gone = count == ledgerGone
	if gone {
		count = 0
	}
	size = recordHeader + ledgerSeat + count*boundBytes
	if len(raw) < size || binary.BigEndian.Uint32(raw) != crc32.Checksum(raw[4:size], castagnoli) {
		return seat, nil, false, 0
	}
	seat = readSeat(raw[recordHeader:])
	seat.Host = sixpn.Host(binary.BigEndian.Uint32(raw[recordHeader+seatBytes:]))
	for at := recordHeader + ledgerSeat; at < size; at += boundBytes {
		if bounds == nil {
			bounds = Bounds{}
		}
		bounds[sixpn.Host(binary.BigEndian.Uint32(raw[at:]))] = binary.BigEndian.Uint32(raw[at+4:])
	}
	return seat, bounds, gone, size
}
