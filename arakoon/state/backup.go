package state

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"openvstorage/internal/format"
	"openvstorage/internal/wal"

	"github.com/google/uuid"
)

// A backup of a group is the common header (kind 20, owner the cluster, number the
// revision), and then records as package wal frames them, with seqs from 1 without gaps,
// durable 0 and flags 0. Bodies, little-endian:
//
//	kind 1, head     life u64, member u64, index u64, term u64, newest time i64, level
//	                 u32, number of leases u32, name of the group in the bytes that are
//	                 left. The first record.
//	kind 2, block    keys as in Pebble, ascending over all blocks, but for "m": of each its
//	                 length u32 and bytes, and the value's length u32 and bytes. At least
//	                 one; about 256 KiB.
//	kind 3, trailer  number of keys u64, bytes of keys and values u64, SHA-256 of all bytes
//	                 of the file before this record. The last record; nothing is behind it.
//
// A file without its trailer is refused, so one that was cut short never looks whole.
const (
	backupVersion = 1

	backupHead    = 1
	backupBlock   = 2
	backupTrailer = 3

	backupHeadSize = 48
	backupNameMax  = 255
	backupBlockMax = 256<<10 + keyRoom + ValueMax + 8 // what a block may have: it ends with the key that fills it
	keyRoom        = KeyMax + 1
)

// ErrBackup is matched by the error for bytes that are not a whole backup.
var ErrBackup = errors.New("backup is damaged")

// BackupInfo says what a backup is of.
type BackupInfo struct {
	Cluster uuid.UUID
	Group   string // its name
	Index   uint64 // the revision; all up to it is in the backup
	Term    uint64
	Life    uint64
	Member  uint64 // that wrote it
	Level   uint32
	Keys    uint64
	Bytes   uint64 // of keys and values

	time   int64
	leases uint32
}

// Backup writes a backup of the image. Group is the name that the backup is to have, of up
// to 255 bytes. pace is as for Sum. Nothing says that w has it durably: that is the
// caller's to see to.
func (i *Image) Backup(ctx context.Context, w io.Writer, group string, pace func(ctx context.Context, bytes int) error) (BackupInfo, error) {
	m := i.meta
	info := BackupInfo{
		Cluster: m.cluster, Group: group, Index: m.at.Index, Term: m.at.Term, Life: m.life, Member: m.member,
		Level: m.level, time: m.time, leases: m.leases,
	}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return info, err
	}
	b := &backupWriter{w: w, incarnation: binary.LittleEndian.Uint64(seed[:]), sum: sha256.New()}
	err := b.write(ctx, i, &info, pace)
	if err != nil {
		return info, fmt.Errorf("arakoon state: back up %s at %d: %w", group, info.Index, err)
	}
	return info, nil
}

type backupWriter struct {
	w           io.Writer
	incarnation uint64
	seq         uint64
	sum         hash.Hash
	block, buf  []byte
}

func (b *backupWriter) write(ctx context.Context, i *Image, info *BackupInfo, pace func(context.Context, int) error) error {
	if len(info.Group) > backupNameMax {
		return fmt.Errorf("name of %d bytes; it may have %d", len(info.Group), backupNameMax)
	}
	head := format.AppendHeader(nil, format.Header{
		Kind: format.KindBackup, Version: backupVersion, MinReader: backupVersion, Owner: info.Cluster, Number: info.Index, Incarnation: b.incarnation,
	})
	if err := b.put(head); err != nil {
		return err
	}
	if err := b.record(backupHead, appendBackupHead(nil, *info)); err != nil {
		return err
	}
	err := i.each(func(key, value []byte) error {
		info.Keys++
		info.Bytes += uint64(len(key) + len(value))
		b.block = appendBytes(appendBytes(b.block, key), value)
		if len(b.block) < paceBytes {
			return nil
		}
		return b.flush(ctx, pace)
	})
	if err == nil {
		err = b.flush(ctx, pace)
	}
	if err != nil {
		return err
	}
	return b.record(backupTrailer, appendBackupTrailer(nil, *info, b.sum.Sum(nil)))
}

func (b *backupWriter) flush(ctx context.Context, pace func(context.Context, int) error) error {
	if err := ctx.Err(); err != nil || len(b.block) == 0 {
		return err
	}
	if pace != nil {
		if err := pace(ctx, len(b.block)); err != nil {
			return err
		}
	}
	err := b.record(backupBlock, b.block)
	b.block = b.block[:0]
	return err
}

func (b *backupWriter) record(kind uint16, body []byte) error {
	b.seq++
	b.buf = wal.Append(b.buf[:0], b.incarnation, wal.Record{Seq: b.seq, Kind: kind, Body: body})
	return b.put(b.buf)
}

func (b *backupWriter) put(p []byte) error {
	b.sum.Write(p)
	n, err := b.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

func appendBackupHead(dst []byte, i BackupInfo) []byte {
	for _, v := range []uint64{i.Life, i.Member, i.Index, i.Term, uint64(i.time)} {
		dst = appendU64(dst, v)
	}
	dst = appendU32(appendU32(dst, i.Level), i.leases)
	return append(dst, i.Group...)
}

func decodeBackupHead(b []byte) (i BackupInfo, err error) {
	r := &reader{b: b}
	i.Life, i.Member, i.Index, i.Term, i.time = r.u64(), r.u64(), r.u64(), r.u64(), int64(r.u64())
	i.Level, i.leases = r.u32(), r.u32()
	i.Group = string(r.b)
	switch {
	case r.err != nil:
		return i, r.err
	case i.Level > LevelNewest:
		return i, fmt.Errorf("%w: backup of a group of level %d, this release knows up to %d; run a release that knows it", ErrNewer, i.Level, LevelNewest)
	case i.Level < LevelFirst || len(i.Group) > backupNameMax:
		return i, fmt.Errorf("%w: level %d, name of %d bytes", ErrCorrupt, i.Level, len(i.Group))
	}
	return i, nil
}

func appendBackupTrailer(dst []byte, i BackupInfo, sum []byte) []byte {
	return append(appendU64(appendU64(dst, i.Keys), i.Bytes), sum...)
}

// Verify reads a whole backup and checks every byte of it. The error matches ErrBackup if
// it is not whole, or format.ErrNewer.
func Verify(r io.Reader) (BackupInfo, error) {
	return readBackup(r, func(BackupInfo) error { return nil }, func(key, value []byte) error { return nil })
}

// readBackup reads a backup: head is told what it is of, and each is given each key. What
// they were given counts only if the backup turns out to be whole.
func readBackup(from io.Reader, head func(BackupInfo) error, each func(key, value []byte) error) (BackupInfo, error) {
	b := &backupReader{r: from, sum: sha256.New(), each: each}
	info, err := b.read(head)
	if err != nil {
		return info, fmt.Errorf("arakoon state: read a backup of %q, at offset %d: %w", info.Group, b.at, err)
	}
	return info, nil
}

type backupReader struct {
	r           io.Reader
	at          int64 // of the record that is being read
	incarnation uint64
	seq         uint64
	sum         hash.Hash
	buf, last   []byte
	each        func(key, value []byte) error
	keys, bytes uint64
}

func (b *backupReader) read(head func(BackupInfo) error) (info BackupInfo, err error) {
	var h format.Header
	buf := make([]byte, format.HeaderSize)
	if err := b.full(buf); err != nil {
		return info, err
	}
	if h, err = format.DecodeHeader(buf, format.KindBackup, backupVersion, 0); err != nil {
		return info, b.damage(err)
	}
	b.sum.Write(buf)
	b.at, b.incarnation = format.HeaderSize, h.Incarnation
	kind, body, err := b.record()
	if err != nil {
		return info, err
	}
	if kind != backupHead {
		return info, b.damage(fmt.Errorf("its first record is of kind %d", kind))
	}
	if info, err = decodeBackupHead(body); err != nil {
		return info, b.damage(err)
	}
	if info.Cluster = h.Owner; info.Index != h.Number {
		return info, b.damage(fmt.Errorf("its header says revision %d, its head %d", h.Number, info.Index))
	}
	if err := head(info); err != nil {
		return info, err
	}
	for {
		sum := b.sum.Sum(nil) // before the record, which may be the trailer
		kind, body, err := b.record()
		if err != nil {
			return info, err
		}
		if kind == backupBlock {
			if err := b.blockOf(body); err != nil {
				return info, err
			}
			continue
		}
		info.Keys, info.Bytes = b.keys, b.bytes
		if want := appendBackupTrailer(nil, info, sum); kind != backupTrailer || !bytes.Equal(body, want) {
			return info, b.damage(fmt.Errorf("%d keys and %d bytes were read, and its last record of kind %d says %x", b.keys, b.bytes, kind, body))
		}
		if n, err := io.ReadFull(b.r, buf[:1]); n > 0 || !errors.Is(err, io.EOF) {
			return info, b.damage(errors.Join(errors.New("there is something behind its end"), err))
		}
		return info, nil
	}
}

// record reads the next record. The body is valid until the next call.
func (b *backupReader) record() (kind uint16, body []byte, err error) {
	b.at += int64(len(b.buf))
	var raw [wal.HeadSize]byte
	if err := b.full(raw[:]); err != nil {
		return 0, nil, err
	}
	h, ok, err := wal.DecodeHead(raw[:], b.incarnation)
	switch {
	case err != nil:
		return 0, nil, b.damage(err)
	case !ok:
		return 0, nil, b.damage(errors.New("zeros where a record is to be"))
	case h.Kind > backupTrailer:
		return 0, nil, fmt.Errorf("%w: record of kind %d in a backup; run a release that reads it", format.ErrNewer, h.Kind)
	case h.Seq != b.seq+1 || h.Flags != 0 || h.Durable != 0:
		return 0, nil, b.damage(fmt.Errorf("record %d, flags %#x, durable %d behind record %d", h.Seq, h.Flags, h.Durable, b.seq))
	case h.Length > backupBlockMax:
		return 0, nil, b.damage(fmt.Errorf("record of %d bytes", h.Length))
	}
	b.seq++
	if cap(b.buf) < h.Size() {
		b.buf = make([]byte, h.Size())
	}
	b.buf = append(b.buf[:0], raw[:]...)[:h.Size()]
	if err := b.full(b.buf[wal.HeadSize:]); err != nil {
		return 0, nil, err
	}
	body = b.buf[wal.HeadSize : wal.HeadSize+h.Length]
	if err := h.Check(body, b.incarnation); err != nil {
		return 0, nil, b.damage(err)
	}
	if pad := b.buf[wal.HeadSize+h.Length:]; format.NotZero(pad) >= 0 {
		return 0, nil, b.damage(errors.New("record padded with other than zeros"))
	}
	b.sum.Write(b.buf)
	return h.Kind, body, nil
}

func (b *backupReader) blockOf(body []byte) error {
	r := &reader{b: body}
	if len(body) == 0 {
		r.fail("a block without keys")
	}
	for len(r.b) > 0 && r.err == nil {
		key, value := r.bytes(), r.bytes()
		switch {
		case r.err != nil:
		case len(key) == 0 || bytes.Equal(key, metaKey) || b.last != nil && bytes.Compare(key, b.last) <= 0:
			r.fail("key %q behind %q", key, b.last)
		default:
			b.last = append(b.last[:0], key...)
			b.keys++
			b.bytes += uint64(len(key) + len(value))
			if err := b.each(key, value); err != nil {
				return err
			}
		}
	}
	if r.err != nil {
		return b.damage(r.err)
	}
	return nil
}

// full reads so many bytes. A backup that ends before is no backup.
func (b *backupReader) full(p []byte) error {
	_, err := io.ReadFull(b.r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return b.damage(errors.New("it ends here"))
	}
	return err
}

// damage makes an error match ErrBackup, unless a newer release's bytes are met.
func (b *backupReader) damage(err error) error {
	if errors.Is(err, format.ErrNewer) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBackup, err)
}
