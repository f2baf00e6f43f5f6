package wire

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// pageSize is what bodies of that size and more are aligned to in memory, so that they
// can be read from and written to disks directly.
const pageSize = 4096

// Buffer is a body and whoever gets its memory back. It has one owner at a time: what is
// given to Conn.Call, or returned by a Handler, belongs to the connection from then on,
// whatever comes of it. An owner that needs it longer calls Retain first. Its methods are
// safe for concurrent use; its bytes must not be changed while a connection owns it.
type Buffer struct {
	pieces  [][]byte
	one     [1][]byte
	header  []byte
	size    int
	refs    atomic.Int32
	release func()

	pool  *Pool
	mem   []byte
	class int

	// of a message that came: where its room is given back to
	from   *endpoint
	window int
	charge int64
}

// Wrap makes a body of the caller's own memory, pieces one after the other, without a
// copy. release, if not nil, is called once, when nobody reads them any more, from any
// goroutine; it must not block.
func Wrap(release func(), pieces ...[]byte) *Buffer {
	b := &Buffer{release: release, pieces: pieces}
	for _, p := range pieces {
		b.size += len(p)
	}
	b.refs.Store(1)
	return b
}

// Bytes returns the body of one piece: of every body that came by a connection or from
// a Pool. Of a body of several pieces it returns a copy.
func (b *Buffer) Bytes() []byte {
	switch {
	case b == nil || len(b.pieces) == 0:
		return nil
	case len(b.pieces) == 1:
		return b.pieces[0]
	}
	all := make([]byte, 0, b.size)
	for _, p := range b.pieces {
		all = append(all, p...)
	}
	return all
}

// Len is the body's length in bytes. That of nil is 0.
func (b *Buffer) Len() int {
	if b == nil {
		return 0
	}
	return b.size
}

// Retain makes one more Release necessary.
func (b *Buffer) Retain() {
	if b != nil && b.refs.Add(1) <= 1 {
		panic("wire: a buffer was retained after its release")
	}
}

// Release ends the caller's use of the body. The last one gives its memory back. nil is
// fine.
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("wire: a buffer was released twice")
	}
	mem := b.mem
	b.pieces, b.one[0], b.header, b.mem = nil, nil, nil, nil
	if b.release != nil {
		b.release()
	}
	if b.pool != nil {
		b.pool.put(mem, b.class)
	}
	if b.from != nil {
		b.from.freed(b.window, b.charge)
	}
}

// Detach takes the bytes of a body of one piece away from wherever their memory came from:
// they are the caller's for good, and the room that the body took of a window or a pool is
// given back at once. The caller must be the only owner; the Buffer must not be used any
// more. It is for what is kept for long.
func (b *Buffer) Detach() []byte {
	if b.Len() == 0 {
		b.Release()
		return nil
	}
	if b.release != nil || b.refs.Load() != 1 {
		all := append([]byte(nil), b.Bytes()...)
		b.Release()
		return all
	}
	bytes := b.Bytes()
	if b.pool != nil {
		b.pool.lose(len(b.mem))
		b.pool = nil
	}
	b.Release()
	return bytes
}

// between appends the bytes [from, from+n) of the body to dst, as slices.
func (b *Buffer) between(dst [][]byte, from, n int) [][]byte {
	for _, p := range b.pieces {
		if n == 0 {
			break
		}
		if from >= len(p) {
			from -= len(p)
			continue
		}
		p = p[from:min(len(p), from+n)]
		from, n = 0, n-len(p)
		dst = append(dst, p)
	}
	return dst
}

// Size classes: four to a doubling, from 1 KiB up, so that at most a quarter is waste.
const (
	classMin = 1 << 10
	classes  = 4*16 + 5
)

func classOf(n int) (class, size int) {
	if n <= classMin {
		return 0, classMin
	}
	k := bits.Len(uint(n-1)) - 1
	base := 1 << k
	step := base / 4
	i := (n - base + step - 1) / step
	return (k-10)*4 + i, base + i*step
}

// Pool hands out memory for bodies and keeps what comes back, both up to a limit.
// It is safe for concurrent use.
type Pool struct {
	limit, keep int64

	mu          sync.Mutex
	free        [classes][][]byte
	taken, kept int64
}

// NewPool makes a pool that hands out at most limit bytes at a time (0: as many as are
// asked for), and keeps at most keep bytes for later.
func NewPool(limit, keep int64) *Pool { return &Pool{limit: limit, keep: keep} }

// Get returns a body of n bytes, aligned to pages from one page on. What is in it is
// undefined. It returns nil if the pool's limit does not allow it, or n is negative or
// over BodyMax.
func (p *Pool) Get(n int) *Buffer {
	if n < 0 || n > BodyMax {
		return nil
	}
	return p.get(n, 0)
}

// get is Get with room for a header behind the body.
func (p *Pool) get(body, header int) *Buffer {
	class, size := classOf(body + header)
	mem, ok := p.take(class, size)
	if !ok {
		return nil
	}
	if mem == nil {
		mem = aligned(size)
	}
	b := &Buffer{pool: p, mem: mem, class: class, size: body, header: mem[body : body+header : body+header]}
	b.one[0] = mem[:body:body]
	b.pieces = b.one[:]
	b.refs.Store(1)
	return b
}

func (p *Pool) take(class, size int) (mem []byte, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit > 0 && p.taken+int64(size) > p.limit {
		return nil, false
	}
	p.taken += int64(size)
	if free := p.free[class]; len(free) > 0 {
		mem = free[len(free)-1]
		free[len(free)-1] = nil
		p.free[class] = free[:len(free)-1]
		p.kept -= int64(size)
	}
	return mem, true
}

func (p *Pool) put(mem []byte, class int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken -= int64(len(mem))
	size := int64(len(mem))
	if size > p.keep {
		return
	}
	if p.kept+size > p.keep { // of sizes that are not asked for now, perhaps
		p.free, p.kept = [classes][][]byte{}, 0
	}
	p.kept += size
	p.free[class] = append(p.free[class], mem)
}

// lose is for memory that does not come back.
func (p *Pool) lose(size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken -= int64(size)
}

// Taken is how many bytes are handed out at the moment.
func (p *Pool) Taken() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Kept is how many bytes the pool keeps for later.
func (p *Pool) Kept() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept
}

func aligned(n int) []byte {
	if n < pageSize {
		return make([]byte, n)
	}
	mem := make([]byte, n+pageSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) & (pageSize - 1)
	return mem[skip : skip+n : skip+n]
}
