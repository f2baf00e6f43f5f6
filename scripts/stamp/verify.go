package stamp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Reading is a connection to the device, for Verify. Safe for concurrent use.
type Reading interface {
	ReadAt(p []byte, off int64) (int, error)
}

// VerifyOptions say what is to be proved.
type VerifyOptions struct {
	// PowerCut asks for what a power cut must leave: every write that was acknowledged
	// before an acknowledged flush (or FUA write) was issued. A write may be there only
	// if all writes are that were acknowledged before it was issued. Without PowerCut,
	// every acknowledged write must be there.
	PowerCut bool
	// Full reads the whole device, so that it finds a change in a place that was not
	// written to. Otherwise Verify reads only what was written to since the last check,
	// and what lies close to that.
	Full bool
	// Conns are read from in turn. At least one.
	Conns []Reading
}

// Report is the outcome of a check.
type Report struct {
	Issued   int   // writes since the last check
	Acked    int   // of which acknowledged
	Present  int   // of which at least one sector is there
	Bytes    int64 // read
	Faults   int   // all of them
	Findings []Finding
}

// findingsMax bounds the findings that a report holds.
const findingsMax = 20

// Err is nil if the device is right, and otherwise says what is wrong first.
func (r *Report) Err() error {
	if r.Faults == 0 {
		return nil
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "stamp: %d faults", r.Faults)
	for _, f := range r.Findings {
		fmt.Fprintf(&text, "\n\t%s", f)
	}
	return errors.New(text.String())
}

func (r *Report) add(found ...Finding) {
	for _, f := range found {
		if r.Faults++; len(r.Findings) < findingsMax {
			r.Findings = append(r.Findings, f)
		}
	}
}

// scanSize is how much is read at a time.
const scanSize = 256 << 10

func chunkOf(cluster uint64) uint64 { return cluster * ClusterSize / scanSize }

// scan is what one pass over the device found.
type scan struct {
	mu     sync.Mutex
	chunks map[uint64]bool    // that are read
	held   map[uint64]sectors // clusters in them that hold anything
	report *Report
}

// Verify reads the device and compares it with the history, which must have caught up
// with l. If all is right, what was seen becomes the new beginning, in l and in h: from
// then on an older write may not come back, and a write that was not there may not
// appear. After a power cut the caller must flush before it calls Verify: otherwise the
// next power cut may rightly lose what was seen. An error means that the check itself
// failed. What is wrong with the device is in the report.
func Verify(ctx context.Context, h *History, l *Log, o VerifyOptions) (*Report, error) {
	if len(o.Conns) == 0 {
		return nil, errors.New("stamp: verify needs a connection")
	}
	r := &Report{}
	r.Issued, r.Acked = h.acknowledged()
	s := &scan{chunks: h.chunks(o.Full), held: map[uint64]sectors{}, report: r}
	if err := h.scan(ctx, s, o.Conns); err != nil {
		return nil, err
	}
	present, newest := map[uint64]bool{}, uint64(0)
	for number, held := range s.held {
		for i, seq := range held {
			if w := h.writes[seq]; w != nil && w.covers(number*sectorsPerCluster+uint64(i)) {
				present[seq] = true
				newest = max(newest, seq)
			}
		}
	}
	r.Present = len(present)
	if r.Faults == 0 { // otherwise held has gaps that would be called lost
		numbers := slices.Sorted(maps.Keys(s.held))
		for number := range h.clusters {
			if _, ok := s.held[number]; !ok && s.chunks[chunkOf(number)] {
				numbers = append(numbers, number)
			}
		}
		for _, number := range numbers {
			r.add(h.judge(number, s.held[number], o.PowerCut, newest)...)
		}
	}
	if r.Faults != 0 {
		return r, nil
	}
	if err := h.settle(l, s); err != nil {
		return nil, err
	}
	return r, h.Catch(l.Name())
}

// scan reads what is to be read, on all connections.
func (h *History) scan(ctx context.Context, s *scan, conns []Reading) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan uint64)
	var workers sync.WaitGroup
	for _, conn := range conns {
		workers.Go(func() {
			p := make([]byte, scanSize)
			for chunk := range chunks {
				if err := h.readChunk(s, conn, p, chunk); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for _, chunk := range slices.Sorted(maps.Keys(s.chunks)) {
		select {
		case chunks <- chunk:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(chunks)
	workers.Wait()
	return context.Cause(ctx)
}

// chunks is what to read.
func (h *History) chunks(full bool) map[uint64]bool {
	set := map[uint64]bool{}
	if full {
		for c := uint64(0); c*scanSize < h.sectors*SectorSize; c++ {
			set[c] = true
		}
	}
	for number, c := range h.clusters {
		if len(c.writes) > 0 {
			set[chunkOf(number)] = true
		}
	}
	return set
}

func (h *History) readChunk(s *scan, conn Reading, p []byte, chunk uint64) error {
	off := chunk * scanSize
	p = p[:min(uint64(len(p)), h.sectors*SectorSize-off)]
	if _, err := conn.ReadAt(p, int64(off)); err != nil {
		return fmt.Errorf("stamp: read back %d bytes at %d: %w", len(p), off, err)
	}
	s.mu.Lock()
	s.report.Bytes += int64(len(p))
	s.mu.Unlock()
	for at := 0; at < len(p); at += ClusterSize {
		number := (off + uint64(at)) / ClusterSize
		held, found := h.decodeCluster(p[at:min(at+ClusterSize, len(p))], number)
		if held == (sectors{}) && found == nil {
			continue
		}
		s.mu.Lock()
		s.held[number] = held
		s.report.add(found...)
		s.mu.Unlock()
	}
	return nil
}

func (h *History) decodeCluster(p []byte, number uint64) (held sectors, found []Finding) {
	for i := 0; i*SectorSize < len(p); i++ {
		sector := number*sectorsPerCluster + uint64(i)
		st, err := Decode(p[i*SectorSize : (i+1)*SectorSize])
		switch {
		case err != nil:
			found = append(found, Finding{Corrupt, sector, err.Error()})
		case st == (Stamp{}):
		case st.Run != h.run:
			found = append(found, Finding{Foreign, sector, fmt.Sprintf("a stamp of run %#x", st.Run)})
		case st.Sector != sector:
			found = append(found, Finding{Misplaced, sector, fmt.Sprintf("write %d of offset %d", st.Seq, st.Sector*SectorSize)})
		default:
			held[i] = st.Seq
		}
	}
	return held, found
}

// settle logs what was seen, in runs, where it differs from the last time.
func (h *History) settle(l *Log, s *scan) error {
	var records []record
	for number, c := range h.clusters {
		if !s.chunks[chunkOf(number)] {
			continue
		}
		now := s.held[number]
		for i, seq := range now {
			if seq == c.base[i] {
				continue
			}
			sector := number*sectorsPerCluster + uint64(i)
			if n := len(records); n > 0 {
				if last := &records[n-1]; last.seq == seq && last.first+uint64(last.count) == sector {
					last.count++
					continue
				}
			}
			records = append(records, record{kind: kindSeen, first: sector, count: 1, seq: seq})
		}
	}
	_, err := l.append(append(records, record{kind: kindChecked})...)
	return err
}
