package raftlog

import (
	"errors"
	"fmt"

	"openvstorage/internal/format"
	"openvstorage/internal/wal"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// InitialState implements raft.Storage. The members are those at the snapshot
// marker; the state may know newer ones.
func (l *Log) InitialState() (*pb.HardState, *pb.ConfState, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var hard *pb.HardState
	if l.hard != nil {
		hard = proto.Clone(l.hard).(*pb.HardState)
	}
	return hard, proto.Clone(l.index.marker.Conf).(*pb.ConfState), nil
}

// Marker is the newest snapshot marker.
func (l *Log) Marker() Marker {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.index.marker
	m.Conf = proto.Clone(m.Conf).(*pb.ConfState)
	return m
}

// FirstIndex implements raft.Storage.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.index.first(), nil
}

// LastIndex implements raft.Storage.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.index.last(), nil
}

// Term implements raft.Storage.
func (l *Log) Term(i uint64) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.index.term(i)
}

// Snapshot implements raft.Storage. The log holds no snapshots.
func (l *Log) Snapshot() (*pb.Snapshot, error) {
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

// Entries implements raft.Storage. The newest come from memory, others from
// the segments, verified.
func (l *Log) Entries(lo, hi, limit uint64) ([]*pb.Entry, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if lo < l.index.first() {
		return nil, raft.ErrCompacted
	}
	if hi > l.index.last()+1 || lo >= hi {
		return nil, raft.ErrUnavailable
	}
	var entries []*pb.Entry
	size := uint64(0)
	for lo < hi {
		if lo >= l.tail.first() {
			more, _ := l.tail.within(lo, hi, limit, size)
			return append(entries, more...), nil
		}
		part := l.index.find(lo)
		read, err := l.read(part)
		if err != nil {
			return nil, err
		}
		for _, e := range read {
			i := e.GetIndex()
			if i < lo || i > part.last || i >= hi {
				continue
			}
			if size += uint64(entrySize(e)); size > limit && len(entries) > 0 {
				return entries, nil
			}
			entries = append(entries, e)
			lo = i + 1
		}
	}
	return entries, nil
}

// read reads the entries of a record.
func (l *Log) read(p stretch) ([]*pb.Entry, error) {
	s := l.segments[p.segment]
	b := make([]byte, p.size)
	if n, err := s.file.ReadAt(b, p.off); n < len(b) {
		return nil, fmt.Errorf("raftlog: entries from %d: %w", p.first, err)
	}
	h, ok, err := wal.DecodeHead(b, s.incarnation)
	if err != nil || !ok || h.Size() != len(b) {
		return nil, damage(s, p.off, err)
	}
	body := b[wal.HeadSize : wal.HeadSize+h.Length]
	if err := h.Check(body, s.incarnation); err != nil {
		return nil, damage(s, p.off, err)
	}
	entries, err := decodeEntries(body)
	if errors.Is(err, format.ErrNewer) {
		return nil, newer(s.path, p.off, err)
	}
	if err != nil {
		return nil, damage(s, p.off, err)
	}
	if entries[0].GetIndex() > p.first || entries[len(entries)-1].GetIndex() < p.last {
		return nil, damage(s, p.off, fmt.Errorf("entries from %d, not %d to %d", entries[0].GetIndex(), p.first, p.last))
	}
	return entries, nil
}
