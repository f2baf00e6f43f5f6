package stamp

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

var errGone = errors.New("the server is gone")

// fake is a device in memory that is killed after some requests. A lie, if
// there is one, may take the place of a write that it acknowledges.
type fake struct {
	mu    sync.Mutex
	p     []byte
	alive atomic.Int64 // requests until it is killed; below 0 it is dead
	lie   func(f *fake, p []byte, off int64) (lied bool)
}

func newFake(size int64) *fake {
	f := &fake{p: make([]byte, size)}
	f.alive.Store(1 << 40)
	return f
}

func (f *fake) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return copy(p, f.p[off:]), nil
}

func (f *fake) Write(p []byte, off int64, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.alive.Add(-1)
	if n < -1 || n < 0 && f.lie != nil {
		return errGone
	}
	if f.lie == nil || !f.lie(f, p, off) {
		copy(f.p[off:], p)
	}
	if n < 0 {
		return errGone // one write is applied and not acknowledged
	}
	return nil
}

func (f *fake) Flush() error {
	if f.alive.Add(-1) < 0 {
		return errGone
	}
	return nil
}

// script drives a log and a fake by hand, one write at a time.
type script struct {
	t *testing.T
	l *Log
	h *History
	d *fake
}

const scriptSize = 1 << 20

func newScript(t *testing.T) *script {
	t.Helper()
	l, err := CreateLog(filepath.Join(t.TempDir(), "log"), 0xabc, scriptSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &script{t: t, l: l, h: NewHistory(), d: newFake(scriptSize)}
}

// must is for the log's own errors, of which a test expects none.
func (s *script) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// issue logs a write of count sectors at first.
func (s *script) issue(first, count int, fua ...bool) (seq uint64) {
	s.t.Helper()
	seq, err := s.l.issue(0, uint64(first), uint32(count), len(fua) > 0)
	s.must(err)
	return seq
}

// apply puts sectors [from, to) of the write onto the device.
func (s *script) apply(seq uint64, first, count, from, to int) {
	p := make([]byte, count*SectorSize)
	Fill(p, Stamp{Run: s.l.run, Seq: seq, First: uint64(first)})
	copy(s.d.p[from*SectorSize:to*SectorSize], p[(from-first)*SectorSize:])
}

// write issues, applies and acknowledges.
func (s *script) write(first, count int, fua ...bool) uint64 {
	s.t.Helper()
	seq := s.issue(first, count, fua...)
	s.apply(seq, first, count, first, first+count)
	s.must(s.l.ack(seq))
	return seq
}

func (s *script) flush() {
	s.t.Helper()
	seq, err := s.l.flush()
	s.must(err)
	s.must(s.l.flushed(seq))
}

func (s *script) verify(powerCut bool) *Report {
	s.t.Helper()
	s.must(s.h.Catch(s.l.Name()))
	r, err := Verify(s.t.Context(), s.h, s.l, VerifyOptions{PowerCut: powerCut, Full: true, Conns: []Reading{s.d}})
	s.must(err)
	return r
}
