package state

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A store is moved, and kept as a backup, as text: a line that says what follows, one
// for each record, one at the end by which a file that was cut off or changed is known.
// What lives by a lease is left out: its host says it again. So is what speaks of revisions
// of this store only.
type (
	exportHead struct {
		Format   int       `json:"sixpn_store"`
		Revision int64     `json:"revision"` // of all records
		At       time.Time `json:"at"`
	}
	exportRecord struct {
		Key   string `json:"key"`             // below root
		Value []byte `json:"value,omitempty"` // base64
	}
	exportEnd struct {
		Records int    `json:"records"`
		SHA256  string `json:"sha256"` // of all lines before, hexadecimal
	}
)

// exportFormat changes when older builds could not read a file any more.
const exportFormat = 1

// Export writes all of a store, as of one revision, and says how many records that is.
// They hold secrets: the fleet's authority is one of them.
func Export(ctx context.Context, client *clientv3.Client, w io.Writer) (records int, err error) {
	sum := sha256.New()
	buffered := bufio.NewWriter(io.MultiWriter(w, sum))
	encoder := json.NewEncoder(buffered)
	from, end, revision := root, clientv3.GetPrefixRangeEnd(root), int64(0)
	for more := true; more; {
		page, err := client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(readPage), clientv3.WithRev(revision))
		if err != nil {
			return records, unavailable("export the store", err)
		}
		if revision == 0 {
			revision = page.Header.Revision
			if err := encoder.Encode(exportHead{exportFormat, revision, now()}); err != nil {
				return records, err
			}
		}
		for _, kv := range page.Kvs {
			from = string(kv.Key) + "\x00"
			if kv.Lease != 0 || strings.HasPrefix(string(kv.Key), keyChanged) {
				continue
			}
			if err := encoder.Encode(exportRecord{strings.TrimPrefix(string(kv.Key), root), kv.Value}); err != nil {
				return records, err
			}
			records++
		}
		more = page.More
	}
	if err := buffered.Flush(); err != nil {
		return records, err
	}
	return records, json.NewEncoder(w).Encode(exportEnd{records, hex.EncodeToString(sum.Sum(nil))})
}

// Exported is what Export wrote, read and found whole.
type Exported struct {
	Revision int64
	At       time.Time
	records  []exportRecord
	sum      string
}

// Len is how many records it has.
func (e *Exported) Len() int { return len(e.records) }

// maxExportLine is longer than any record.
const maxExportLine = 2 * maxRequestBytes

// ReadExport reads all that Export wrote. The error is of kind Invalid.
func ReadExport(r io.Reader) (*Exported, error) {
	wrong := func(format string, args ...any) (*Exported, error) {
		return nil, refuse(Invalid, "file", "this is no whole export of a store: %s; expected what `sixpn store export` wrote", fmt.Sprintf(format, args...))
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxExportLine)
	var e Exported
	sum := sha256.New()
	var head exportHead
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Format == 0 {
		return wrong("its first line is not that of one")
	}
	if head.Format != exportFormat {
		return wrong("it has format %d, and this build reads %d", head.Format, exportFormat)
	}
	e.Revision, e.At = head.Revision, head.At
	hashLine(sum, lines.Bytes())
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte(`{"records":`)) {
			var end exportEnd
			if err := json.Unmarshal(lines.Bytes(), &end); err != nil {
				return wrong("its last line cannot be read (%v)", err)
			}
			if e.sum = hex.EncodeToString(sum.Sum(nil)); e.sum != end.SHA256 || len(e.records) != end.Records {
				return wrong("it was changed since it was written")
			}
			if lines.Scan() {
				return wrong("something follows its last line")
			}
			return &e, nil
		}
		var record exportRecord
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil || record.Key == "" {
			return wrong("line %d is no record", len(e.records)+2)
		}
		e.records = append(e.records, record)
		hashLine(sum, lines.Bytes())
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.EOF) {
		return wrong("%v", err)
	}
	return wrong("its end is missing")
}

func hashLine(h hash.Hash, line []byte) {
	h.Write(line)
	h.Write([]byte{'\n'})
}

const (
	// keyOrigin says up to which revision of another store an imported one has what that had,
	// in decimal: a host that had seen no more goes on with it.
	keyOrigin = root + "origin"
	// keyImport is there while an import is under way; its value is the export's sum.
	keyImport = root + "import"
	// One request of an import, as etcd takes it by itself.
	importWrites = 100
	importBytes  = 1 << 20
)

// Import writes an export into a store that has nothing below root. One that was begun
// and did not end may be begun again with the same export, and with no other.
func (e *Exported) Import(ctx context.Context, client *clientv3.Client) error {
	begin, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(root).WithPrefix(), "=", 0)).
		Then(clientv3.OpPut(keyImport, e.sum)).
		Else(clientv3.OpGet(keyImport)).Commit()
	if err != nil {
		return unavailable("import into the store", err)
	}
	if !begin.Succeeded {
		kvs := begin.Responses[0].GetResponseRange().Kvs
		if len(kvs) == 0 || string(kvs[0].Value) != e.sum {
			return refuse(Conflict, "store", "the store has records below %s already: an import needs a store that is empty there; look at it with `etcdctl get --prefix %s --keys-only`", root, root)
		}
	}
	var writes []clientv3.Op
	size := 0
	flush := func(last ...clientv3.Op) error {
		if len(writes)+len(last) == 0 {
			return nil
		}
		_, err := client.Txn(ctx).Then(append(writes, last...)...).Commit()
		writes, size = nil, 0
		if err != nil {
			return unavailable("import into the store", err)
		}
		return nil
	}
	for _, record := range e.records {
		if root+record.Key == keyOrigin { // of an earlier move
			continue
		}
		n := len(record.Key) + len(record.Value)
		if len(writes) >= importWrites || size+n > importBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		writes = append(writes, clientv3.OpPut(root+record.Key, string(record.Value)))
		size += n
	}
	return flush(clientv3.OpDelete(keyImport), clientv3.OpPut(keyOrigin, strconv.FormatInt(e.Revision, 10)))
}

// Sum is the SHA-256 of its lines, hexadecimal.
func (e *Exported) Sum() string { return e.sum }
