package asd

import (
	"unsafe"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/wal"
)

// batch is what is written with one sync. The writer has one and uses it again.
type batch struct {
	seq     uint64
	entries []entry
	values  []osd.Value    // beside entries; of a delete it is empty
	overlay map[string]int // newest entry of each key, as a place in entries
	keys    int            // bytes
	tables  int            // bytes
	packed  int            // bytes
	large   int64          // bytes
	moved   bool           // it is compaction's

	head []byte // aligned to blockSize
	bufs [][]byte
	size int64 // of the batch, once laid out
	at   int64 // where it is in its segment, once written
}

func (b *batch) reset() {
	clear(b.entries)
	clear(b.values)
	b.entries, b.values = b.entries[:0], b.values[:0]
	if b.overlay == nil || len(b.overlay) > entriesMax/4 {
		b.overlay = make(map[string]int)
	}
	clear(b.overlay)
	b.keys, b.tables, b.packed, b.large, b.size, b.moved = 0, 0, 0, 0, 0, false
}

// add appends an entry. layOut sets the offsets and CRCs of a put.
func (b *batch) add(e entry, v osd.Value) {
	b.overlay[string(e.Key)] = len(b.entries)
	b.entries = append(b.entries, e)
	b.values = append(b.values, v)
	b.keys += len(e.Key)
	if e.Delete {
		return
	}
	if packed(e.Size) {
		b.packed += align8(4*len(v.CRCs) + len(v.Data))
	} else {
		b.tables += 4 * len(v.CRCs)
		b.large += roundUp(int64(e.Size))
	}
}

func align8(n int) int { return (n + 7) / 8 * 8 }

// headSize is the length of all but the large values.
func (b *batch) headSize() int64 {
	body := prefixSize + len(b.entries)*entrySize + b.keys
	return roundUp(int64(wal.Size(body) + align8(b.tables) + b.packed))
}

// length is the length of the batch.
func (b *batch) length() int64 { return b.headSize() + b.large }

// layOut decides where everything goes if the batch is written at an offset of a
// segment, and fills the head.
func (b *batch) layOut(s *segment, at int64, durable uint64) {
	headSize := b.headSize()
	b.size = headSize + b.large
	b.head = aligned(b.head, int(headSize))
	clear(b.head)
	bodySize := prefixSize + len(b.entries)*entrySize + b.keys
	body := b.head[wal.HeadSize : wal.HeadSize+bodySize]
	prefix{Blocks: uint32(b.size / blockSize), Entries: uint32(len(b.entries)), At: uint32(at / blockSize)}.put(body, s.incarnation)
	keyAt := prefixSize + len(b.entries)*entrySize
	table := wal.Size(bodySize)
	pack := table + align8(b.tables)
	large := headSize
	for i := range b.entries {
		e, v := &b.entries[i], &b.values[i]
		switch {
		case e.Delete:
		case packed(e.Size):
			e.Table, e.Data = uint32(pack), uint32(pack+4*len(v.CRCs))
			putTable(b.head[pack:], v.CRCs)
			copy(b.head[e.Data:], v.Data)
			pack += align8(4*len(v.CRCs) + len(v.Data))
		default:
			e.Table, e.Data = uint32(table), uint32(large)
			putTable(b.head[table:], v.CRCs)
			table += 4 * len(v.CRCs)
			large += roundUp(int64(e.Size))
		}
		if !e.Delete {
			e.TableCRC = osd.TableCRC(v.CRCs)
		}
		putEntry(body, i, keyAt, e, s.incarnation)
		keyAt += len(e.Key)
	}
	wal.AppendHead(b.head[:0], s.incarnation, wal.Record{Seq: b.seq, Durable: durable, Kind: kindBatch, Body: body})
}

// directMin is the size from which a value is written by itself: past the page
// cache, from the caller's memory if that is aligned. Shorter values are gathered
// into one write.
const directMin = 256 << 10

var zeros [blockSize]byte

// write writes the batch at an offset of a file.
//
// The head takes the place of a mark that is still in the page cache. A direct
// write would wait until the kernel has written that mark, so the head goes
// through the page cache too.
func (b *batch) write(f disk.File, at int64) error {
	half := len(b.head) / 2 // two buffers: one would be written directly
	b.bufs = append(b.bufs[:0], b.head[:half], b.head[half:])
	defer func() { clear(b.bufs[:cap(b.bufs)]) }()
	start, size := at, int64(len(b.head))
	flush := func() error {
		if len(b.bufs) == 0 {
			return nil
		}
		_, err := f.WritevAt(b.bufs, start)
		b.bufs = b.bufs[:0]
		return err
	}
	for i := range b.entries {
		data := b.values[i].Data
		if b.entries[i].Delete || packed(uint32(len(data))) {
			continue
		}
		if whole := len(data) / blockSize * blockSize; len(data) >= directMin {
			if err := flush(); err != nil {
				return err
			}
			if _, err := f.WriteAt(data[:whole], start+size); err != nil {
				return err
			}
			start, size = start+size+int64(whole), 0
			data = data[whole:]
		}
		if len(data) > 0 {
			b.bufs = append(b.bufs, data)
			size += int64(len(data))
		}
		if pad := int(roundUp(size) - size); pad > 0 {
			b.bufs = append(b.bufs, zeros[:pad])
			size += int64(pad)
		}
	}
	return flush()
}

// aligned returns memory of n bytes that begins at a multiple of blockSize. It
// returns b if that is long enough, and not far too long.
func aligned(b []byte, n int) []byte {
	if cap(b) >= n && cap(b) <= max(8*n, 1<<20) {
		return b[:n]
	}
	b = make([]byte, n+n/4+2*blockSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (blockSize - 1)
	return b[skip : skip+n : len(b)]
}
