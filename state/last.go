package state

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/sixpn/sixpn"
)

// last is what a host knew of the store when it last wrote it to disk: the file begins
// with a lastHead, has a lastRecord a line, and ends with a lastEnd.
type last struct {
	cluster  uint64
	fleet    string
	revision int64
	savedAt  time.Time
	held     map[sixpn.Host]bool
	records  map[string]rawRecord
}

// rawRecord is a record as the store has it, whatever this build can read of it.
type rawRecord struct {
	value    []byte
	revision int64
}

// lastFormat changes when an older build could not read the file any more.
const lastFormat = 1

type lastHead struct {
	Format   int          `json:"format"`
	Cluster  string       `json:"cluster"` // hexadecimal
	Fleet    string       `json:"fleet"`
	Revision int64        `json:"revision"`
	SavedAt  time.Time    `json:"saved_at"`
	Held     []sixpn.Host `json:"held,omitempty"`
	Records  int          `json:"records"`
}

// lastRecord has its value in Record if that is JSON, else in Bytes.
type lastRecord struct {
	Key      string          `json:"key"`
	Revision int64           `json:"revision"`
	Record   json.RawMessage `json:"record,omitempty"`
	Bytes    []byte          `json:"bytes,omitempty"`
}

// lastEnd shows that the file is whole.
type lastEnd struct {
	CRC32 string `json:"crc32"` // of all before it, hexadecimal
}

// writeLast leaves either the old file or the new one, durable. It has secrets in it:
// nobody but its owner can read it.
func writeLast(path string, l last) error {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(file, 1<<20)
	sum := crc32.NewIEEE()
	encoder := json.NewEncoder(io.MultiWriter(buffered, sum))
	err = encodeLast(encoder, l)
	if err == nil {
		err = encoder.Encode(lastEnd{strconv.FormatUint(uint64(sum.Sum32()), 16)})
	}
	if err := errors.Join(err, buffered.Flush(), file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func encodeLast(encoder *json.Encoder, l last) error {
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(lastHead{
		Format: lastFormat, Cluster: strconv.FormatUint(l.cluster, 16), Fleet: l.fleet, Revision: l.revision, SavedAt: l.savedAt,
		Held: slices.Sorted(maps.Keys(l.held)), Records: len(l.records),
	}); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(l.records)) {
		raw := l.records[key]
		r := lastRecord{Key: key, Revision: raw.revision}
		if json.Valid(raw.value) {
			r.Record = raw.value
		} else {
			r.Bytes = raw.value
		}
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// readLast reads the file, all of it or nothing.
func readLast(path string) (last, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return last{}, err
	}
	body, end, err := cutLastLine(content)
	if err != nil {
		return last{}, err
	}
	if sum := strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 16); end.CRC32 != sum {
		return last{}, fmt.Errorf("the checksum is %s, the file says %q", sum, end.CRC32)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	var head lastHead
	if err := decoder.Decode(&head); err != nil {
		return last{}, fmt.Errorf("its first line: %w", err)
	}
	if head.Format != lastFormat {
		return last{}, fmt.Errorf("its format is %d, this release reads %d", head.Format, lastFormat)
	}
	l := last{fleet: head.Fleet, revision: head.Revision, savedAt: head.SavedAt, held: map[sixpn.Host]bool{}, records: make(map[string]rawRecord, head.Records)}
	if l.cluster, err = strconv.ParseUint(head.Cluster, 16, 64); err != nil {
		return last{}, fmt.Errorf("its cluster: %w", err)
	}
	for _, h := range head.Held {
		l.held[h] = true
	}
	for range head.Records {
		var r lastRecord
		if err := decoder.Decode(&r); err != nil {
			return last{}, fmt.Errorf("record %d of %d: %w", len(l.records)+1, head.Records, err)
		}
		value := []byte(r.Record)
		if value == nil {
			value = r.Bytes
		}
		l.records[r.Key] = rawRecord{value, r.Revision}
	}
	return l, nil
}

// cutLastLine splits off what a whole file ends with.
func cutLastLine(content []byte) (body []byte, end lastEnd, err error) {
	line, ok := bytes.CutSuffix(content, []byte("\n"))
	at := bytes.LastIndexByte(line, '\n') + 1
	if ok {
		err = json.Unmarshal(line[at:], &end)
	}
	if !ok || err != nil {
		return nil, end, errors.New("its end is missing")
	}
	return content[:at], end, nil
}
