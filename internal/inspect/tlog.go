package inspect

import (
	"fmt"
	"io"
	"time"

	"openvstorage/tlog"
)

// TLogReport is what inspection finds in a TLog.
type TLogReport struct {
	Name    string      `json:"name"`
	Header  tlog.Header `json:"header"`
	Sealed  bool        `json:"sealed"`
	End     int64       `json:"end"` // offset behind the last good entry
	Entries []TLogEntry `json:"entries"`

	stored bool
}

// TLogEntry is an entry that verifies.
type TLogEntry struct {
	Offset   int64  `json:"offset"`
	Kind     string `json:"kind"`
	Seq      uint64 `json:"seq"`
	Addr     uint64 `json:"addr,omitempty"`
	Run      uint32 `json:"run,omitempty"`
	Location string `json:"location,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// TLog verifies a TLog. An error says that the file is no TLog.
func TLog(file string) (*TLogReport, error) {
	o, err := openObject(file)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	r, err := checkTLog(o, o.size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	r.stored = o.stored
	return r, nil
}

// Err is an error if the TLog has damage, or is an object without an end: only an open
// TLog may end anywhere.
func (r *TLogReport) Err(file string) error {
	if r.stored && !r.Sealed {
		return fmt.Errorf("%s: no good entry at offset %d, and no seal before", file, r.End)
	}
	return nil
}

func checkTLog(f io.ReaderAt, size int64) (*TLogReport, error) {
	r := &TLogReport{Entries: []TLogEntry{}}
	var err error
	r.Header, r.End, r.Sealed, err = tlog.ScanAt(f, size, func(at int64, e tlog.Entry) error {
		line := TLogEntry{Offset: at, Kind: e.Kind.String(), Seq: e.Seq, Addr: e.Addr, Run: e.Run}
		switch e.Kind {
		case tlog.KindWrite:
			line.Location = e.Location.String()
		case tlog.KindSnapshot:
			s, err := e.Snapshot()
			if err != nil {
				return err
			}
			line.Detail = fmt.Sprintf("%q %s of %s", s.Name, s.ID, time.Unix(0, s.Created).UTC().Format(time.RFC3339))
		case tlog.KindRollback:
			line.Detail = "to " + e.Rollback().String()
		}
		r.Entries = append(r.Entries, line)
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.Name = r.Header.ID.Name()
	return r, nil
}

// Write writes the report for people.
func (r *TLogReport) Write(w io.Writer) {
	state := "open"
	if r.Sealed {
		state = "sealed"
	}
	fmt.Fprintf(w, "%s %s: vDisk %s, incarnation %016x, epoch %d, first seq %d\n",
		r.Name, state, r.Header.Volume, r.Header.Incarnation, r.Header.Epoch, r.Header.FirstSeq)
	fmt.Fprintln(w, "OFFSET\tSEQ\tKIND\tADDR\tRUN\tLOCATION")
	for _, e := range r.Entries {
		fmt.Fprintf(w, "%d\t%d\t%s\t%d\t%d\t%s%s\n", e.Offset, e.Seq, e.Kind, e.Addr, e.Run, e.Location, e.Detail)
	}
	fmt.Fprintf(w, "%d entries, good up to offset %d\n", len(r.Entries), r.End)
}
