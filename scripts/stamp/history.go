package stamp

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

// write is one issued write.
type write struct {
	seq   uint64 // time of its issue
	ack   uint64 // time of its acknowledgement, 0 if none came
	first uint64
	count uint32
	fua   bool
}

func (w *write) covers(sector uint64) bool {
	return sector >= w.first && sector < w.first+uint64(w.count)
}

// before reports whether w was acknowledged before v was issued: only then is
// their order known.
func (w *write) before(v *write) bool { return w.ack != 0 && w.ack < v.seq }

// sectors is what the sectors of one cluster hold: the seq of a write, 0 for zeros.
type sectors [sectorsPerCluster]uint64

// cluster is what is known of 4 KiB: what the last check saw and the writes
// issued to it since.
type cluster struct {
	base   sectors
	writes []*write
}

// History is the state that the log describes: what each cluster may hold. Not safe for
// concurrent use.
type History struct {
	run      uint64
	sectors  uint64 // size of the device
	next     uint64 // number of the next record
	writes   map[uint64]*write
	clusters map[uint64]*cluster

	// durable is the newest time for which a flush or a FUA write has vouched:
	// every write acknowledged before it survives a power cut (rule O9).
	durable uint64
}

// NewHistory is the history before the first record.
func NewHistory() *History {
	return &History{writes: map[uint64]*write{}, clusters: map[uint64]*cluster{}}
}

// Catch reads the records of the log that h has not read yet. It leaves a torn record
// at the end for the next call.
func (h *History) Catch(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(int64(h.next)*recordSize, io.SeekStart); err != nil {
		return err
	}
	in := bufio.NewReaderSize(f, 1<<20)
	var p [recordSize]byte
	for {
		if _, err := io.ReadFull(in, p[:]); err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		} else if err != nil {
			return err
		}
		r, err := decodeRecord(p[:])
		if err == nil {
			err = h.apply(r)
		}
		if err != nil {
			return fmt.Errorf("stamp: log %s, record %d: %w", name, h.next, err)
		}
		h.next++
	}
}

// apply takes in the record with number h.next.
func (h *History) apply(r record) error {
	if (h.next == 0) != (r.kind == kindRun) {
		return errBadRecord
	}
	switch r.kind {
	case kindRun:
		h.run, h.sectors = r.seq, r.first
	case kindIssue:
		w := &write{seq: h.next, first: r.first, count: r.count, fua: r.flags&flagFUA != 0}
		h.writes[w.seq] = w
		for c := w.first / sectorsPerCluster; c*sectorsPerCluster < w.first+uint64(w.count); c++ {
			at := h.at(c)
			at.writes = append(at.writes, w)
		}
	case kindAck:
		w := h.writes[r.seq]
		if w == nil || w.ack != 0 {
			return errBadRecord
		}
		w.ack = h.next
		if w.fua {
			h.durable = max(h.durable, w.seq)
		}
	case kindFlushed:
		h.durable = max(h.durable, r.seq)
	case kindSeen:
		for s := r.first; s < r.first+uint64(r.count); s++ {
			h.at(s / sectorsPerCluster).base[s%sectorsPerCluster] = r.seq
		}
	case kindChecked:
		clear(h.writes)
		for _, c := range h.clusters {
			c.writes = nil
		}
	}
	return nil
}

func (h *History) at(number uint64) *cluster {
	c := h.clusters[number]
	if c == nil {
		c = &cluster{}
		h.clusters[number] = c
	}
	return c
}

// acknowledged counts the writes since the last check, and those acknowledged.
func (h *History) acknowledged() (issued, acked int) {
	for _, w := range h.writes {
		if w.ack != 0 {
			acked++
		}
	}
	return len(h.writes), acked
}
