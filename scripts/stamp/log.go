package stamp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// The log is a file of records of 32 bytes, little-endian. The number of a
// record, from 0, is the time at which it happened and, for an issued write,
// the write's seq.
//
//	offset  size  field
//	     0     1  kind
//	     1     1  flags: 1 = FUA
//	     2     2  writer
//	     4     4  count, in sectors
//	     8     8  first sector; for kindRun the size of the device in sectors
//	    16     8  seq of the write (ack, seen), number of the flush's issue record (flushed), run id (run)
//	    24     4  CRC-32C of bytes 0 to 23
//	    28     4  zero
const recordSize = 32

type kind byte

const (
	kindRun     kind = 1 // record 0: names the run and the size of the device
	kindIssue   kind = 2 // a write is about to be sent
	kindAck     kind = 3 // its reply came, without an error
	kindFlush   kind = 4 // a flush is about to be sent
	kindFlushed kind = 5 // its reply came, without an error
	kindSeen    kind = 6 // a check found these sectors to hold write seq (0: zeros)
	kindChecked kind = 7 // the check is complete: what was seen is the new beginning
)

const flagFUA = 1

type record struct {
	kind   kind
	flags  byte
	writer uint16
	count  uint32
	first  uint64
	seq    uint64
}

func (r record) append(p []byte) []byte {
	le := binary.LittleEndian
	start := len(p)
	p = append(p, byte(r.kind), r.flags)
	p = le.AppendUint16(p, r.writer)
	p = le.AppendUint32(p, r.count)
	p = le.AppendUint64(p, r.first)
	p = le.AppendUint64(p, r.seq)
	p = le.AppendUint32(p, crc32.Checksum(p[start:], castagnoli))
	return le.AppendUint32(p, 0)
}

var errBadRecord = errors.New("bad record")

func decodeRecord(p []byte) (record, error) {
	le := binary.LittleEndian
	if len(p) < recordSize || crc32.Checksum(p[:24], castagnoli) != le.Uint32(p[24:]) || le.Uint32(p[28:]) != 0 {
		return record{}, errBadRecord
	}
	r := record{
		kind:   kind(p[0]),
		flags:  p[1],
		writer: le.Uint16(p[2:]),
		count:  le.Uint32(p[4:]),
		first:  le.Uint64(p[8:]),
		seq:    le.Uint64(p[16:]),
	}
	if r.kind < kindRun || r.kind > kindChecked {
		return record{}, errBadRecord
	}
	return r, nil
}

// Log is the append-only file of what was issued and acknowledged. Each
// record is in the kernel before the call returns, so that a killed client
// leaves a log that still tells all that it had sent. Safe for concurrent use.
type Log struct {
	run  uint64
	size int64

	mu   sync.Mutex // guards what follows
	file *os.File
	next uint64 // number of the next record
	buf  []byte
	err  error // first failed write: nothing is appended after it
}

// CreateLog starts the log of a run against a device of size bytes.
func CreateLog(name string, run uint64, size int64) (*Log, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	l := &Log{run: run, size: size, file: f}
	if _, err := l.append(record{kind: kindRun, first: uint64(size / SectorSize), seq: run}); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// OpenLog opens a log to append to it. It cuts off a torn record at the end, which a
// killed client leaves.
func OpenLog(name string) (*Log, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	var head [recordSize]byte
	if err == nil {
		_, err = f.ReadAt(head[:], 0)
	}
	var r record
	if err == nil {
		r, err = decodeRecord(head[:])
	}
	if err == nil && r.kind != kindRun {
		err = errBadRecord
	}
	if err == nil {
		err = f.Truncate(end / recordSize * recordSize)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("stamp: open log %s: %w", name, err)
	}
	return &Log{run: r.seq, size: int64(r.first) * SectorSize, file: f, next: uint64(end / recordSize)}, nil
}

// Name is the file's name.
func (l *Log) Name() string { return l.file.Name() }

// Run is the run's id.
func (l *Log) Run() uint64 { return l.run }

// Size is the size of the device in bytes.
func (l *Log) Size() int64 { return l.size }

// Close closes the file and returns the first error of any append.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.err, l.file.Close())
}

// append writes the records as one piece and returns the number of the first.
func (l *Log) append(records ...record) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	l.buf = l.buf[:0]
	for _, r := range records {
		l.buf = r.append(l.buf)
	}
	if _, err := l.file.WriteAt(l.buf, int64(l.next)*recordSize); err != nil {
		l.err = fmt.Errorf("stamp: append to log: %w", err)
		return 0, l.err
	}
	first := l.next
	l.next += uint64(len(records))
	return first, nil
}

func (l *Log) issue(writer int, first uint64, count uint32, fua bool) (seq uint64, err error) {
	r := record{kind: kindIssue, writer: uint16(writer), first: first, count: count}
	if fua {
		r.flags = flagFUA
	}
	return l.append(r)
}

func (l *Log) ack(seq uint64) error {
	_, err := l.append(record{kind: kindAck, seq: seq})
	return err
}

func (l *Log) flush() (uint64, error) { return l.append(record{kind: kindFlush}) }

func (l *Log) flushed(seq uint64) error {
	_, err := l.append(record{kind: kindFlushed, seq: seq})
	return err
}
