package transport

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/device"
)

func TestLayouts(t *testing.T) {
	for what, sizes := range map[string][2]uintptr{
		"InHeader":          {unsafe.Sizeof(fuse.InHeader{}), requestHeaderSize},
		"ReadIn":            {unsafe.Sizeof(fuse.ReadIn{}), ioSize},
		"WriteIn":           {unsafe.Sizeof(fuse.WriteIn{}), ioSize},
		"WriteIn.Size":      {unsafe.Offsetof(fuse.WriteIn{}.Size), unsafe.Offsetof(fuse.ReadIn{}.Size)},
		"WriteIn.Offset":    {unsafe.Offsetof(fuse.WriteIn{}.Offset), unsafe.Offsetof(fuse.ReadIn{}.Offset)},
		"replyHeader":       {unsafe.Sizeof(replyHeader{}), replyHeaderSize},
		"ringHeader":        {unsafe.Sizeof(ringHeader{}), 288},
		"ringHeader.length": {unsafe.Offsetof(ringHeader{}.length), 272},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s: %d, want %d", what, sizes[0], sizes[1])
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for s, want := range map[string][]int{"0": {0}, "0-3": {0, 1, 2, 3}, "0-1,4,6-7": {0, 1, 4, 6, 7}, "": nil, "3-1": nil, "0-": nil, "x": nil, "0-9999999": nil} {
		got, err := parseCPUs(s)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestReplyRoom(t *testing.T) {
	fixed := make([]byte, 40)
	fixed[1], fixed[17], fixed[29] = 1, 2, 3
	for opcode, want := range map[uint32]int{1: 4096, opGetxattr: 4096 + 256, opReaddir: 4096 + 512, opIoctl: 4096 + 768} {
		if got := replyRoom(opcode, fixed); got != want {
			t.Errorf("operation %d: %d, want %d", opcode, got, want)
		}
	}
	if got := replyRoom(opReaddir, fixed[:8]); got != 4096 {
		t.Errorf("a short request: %d", got)
	}
}

// The thread that asks here is not being killed; one that is not there counts as
// killed.
func TestWaiting(t *testing.T) {
	var w waiting
	self, gone := uint32(os.Getpid()), uint32(1<<30)
	ends := make(chan uint64, 100)
	begin := func(unique uint64, thread uint32) *waiter {
		return w.begin(unique, thread, func() { ends <- unique })
	}
	ended := func(unique uint64) {
		t.Helper()
		if got := <-ends; got != unique {
			t.Errorf("%d ended, not %d", got, unique)
		}
	}
	a, b := begin(1, self), begin(2, gone)
	w.signal(1)
	w.signal(2)
	ended(2)
	w.done(2, b)
	w.signal(3) // comes before its request
	c := begin(3, gone)
	ended(3)
	w.done(3, c)
	d := begin(3, gone) // the same number once more: a signal counts once
	if d.watched {
		t.Error("ended by the signal of another")
	}
	w.done(3, d)
	for i := range uint64(2 * earlyMax) {
		w.signal(100 + i)
	}
	if e := begin(100, gone); e.watched {
		t.Error("of many signals the first ones are remembered")
	}
	if e := begin(99+2*earlyMax, gone); !e.watched {
		t.Error("of many signals the last ones are not remembered")
	}
	if !a.watched || killed(self) {
		t.Error("this process is taken for killed")
	}
	w.endAll()
	w.done(1, a)
}

func TestSigkillPending(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tdd\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000100\n": false,
		"SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n":                                       true,
		"SigPnd:\t0000000000000000\nShdPnd:\t0000000000004102\n":                                       true,
		"SigPnd:\t0000000000400000\nShdPnd:\t0000000000000002\n":                                       false,
		"": false,
	} {
		if got := sigkillPending([]byte(status)); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}

func TestMayWait(t *testing.T) {
	r := newRound(nil)
	defer r.close()
	for what, c := range map[string]struct {
		ctx  context.Context
		want bool
	}{
		"device": {&fuse.Context{Cancel: tried}, false}, "ring": {&fuse.Context{Cancel: r.tried}, false},
		"handler": {&fuse.Context{Cancel: make(chan struct{})}, true}, "none": {context.Background(), true},
	} {
		if got := MayWait(c.ctx); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// tape is a Writer that notes the lengths of batches.
type tape struct {
	batches [][]int64 // offsets
	errno   syscall.Errno
}

func (w *tape) WriteGathered(batch []device.Span) syscall.Errno {
	var offsets []int64
	for _, s := range batch {
		offsets = append(offsets, s.Off)
	}
	w.batches = append(w.batches, offsets)
	return w.errno
}

// Writes of a round are made together, each file's in order, in batches of a
// bounded length; all of a batch have its result.
func TestRound(t *testing.T) {
	ends := map[int]syscall.Errno{}
	r := newRound(func(entry int, n uint32, e syscall.Errno) {
		if _, twice := ends[entry]; twice || n == 0 {
			t.Errorf("entry %d ends with %d, %v", entry, n, e)
		}
		ends[entry] = e
	})
	defer r.close()
	ctx := &fuse.Context{Cancel: r.tried}
	a, b := new(tape), &tape{errno: syscall.EAGAIN}
	for range 2 {
		a.batches, b.batches = nil, nil
		clear(ends)
		for i := range 40 {
			to := []Writer{a, a, b}[i%3]
			if !Gather(ctx, to, int64(i), make([]byte, gatherWrite)) {
				t.Fatal("not gathered")
			}
			r.took(i)
		}
		if Gather(ctx, a, 0, make([]byte, gatherWrite+1)) || Gather(&fuse.Context{Cancel: tried}, a, 0, make([]byte, 1)) {
			t.Error("gathered what is too long, or came by the device")
		}
		r.make()
		var offsets []int64
		for _, batch := range a.batches {
			if len(batch) > gatherBytes/gatherWrite {
				t.Errorf("%d writes in a batch", len(batch))
			}
			offsets = append(offsets, batch...)
		}
		if len(a.batches) != 2 || len(b.batches) != 1 || len(offsets) != 27 || !slices.IsSorted(offsets) {
			t.Errorf("batches %v and %v", a.batches, b.batches)
		}
		for i := range 40 {
			if want := []syscall.Errno{0, 0, syscall.EAGAIN}[i%3]; ends[i] != want {
				t.Errorf("entry %d: %v", i, ends[i])
			}
		}
	}
}

// Memory that requests have touched goes back when it is more than may wait, but
// for that of the buffer that is taken next.
func TestBuffersTrim(t *testing.T) {
	const most, size = 16 << 20, 1 << 20
	l := newBuffers(size, most, nil)
	defer l.free()
	var all []*buffer
	for range most/size + 8 {
		b, err := l.get()
		if err != nil {
			t.Fatal(err)
		}
		b.mem[len(b.mem)-1] = 1
		all = append(all, b)
	}
	for _, b := range all {
		l.put(b, size)
		if last, err := l.get(); err != nil || last != b || last.mem[len(last.mem)-1] != 1 {
			t.Fatalf("the last buffer has lost its memory: %v", err)
		}
		l.put(b, size)
		used := int64(0)
		for _, b := range l.made {
			used += b.used
		}
		if l.used > most || l.used != used {
			t.Fatalf("%d bytes are said to be used, %d are; %d may be", l.used, used, most)
		}
	}
	if all[0].mem[len(all[0].mem)-1] != 0 || all[0].used != 0 {
		t.Error("one that is taken last has its memory still")
	}
}

// Rings have as many entries as there is memory for, and none if it is too little.
func TestDepth(t *testing.T) {
	for _, c := range []struct {
		memory          int64
		online, offline int
		want            int
	}{
		{0, 1, 0, 64}, {0, 2, 0, 64}, {0, 16, 0, 8}, {0, 64, 0, 8}, {0, 2, 126, 8},
		{128 << 20, 4, 0, 32}, {128 << 20, 17, 0, 0}, {128 << 20, 2, 126, 0}, {128 << 20, 4, 4, 31},
		{1 << 30, 4, 0, 64}, {8 << 20, 1, 0, 8}, {8 << 20, 2, 0, 0},
	} {
		got, err := depth(c.memory, 1<<20, c.online, c.offline)
		if got != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
		if all := int64(got*c.online+c.offline) << 20; err == nil && c.memory != 0 && all > c.memory {
			t.Errorf("%+v: %d bytes", c, all)
		}
	}
	opt := Options{MaxWrite: 1 << 20, Memory: 8<<20 - 1}
	if _, err := Mount("/nowhere", nil, opt); err == nil || !strings.Contains(err.Error(), "at least 8388608") {
		t.Errorf("too little memory: %v", err)
	}
}

// What waits is bounded in number and in bytes; one request always has room.
func TestBuffers(t *testing.T) {
	var deaf atomic.Int32
	l := newBuffers(1<<20, 2*requestShare, func() func() { deaf.Add(1); return func() { deaf.Add(-1) } })
	a, err := l.get()
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.get()
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan *buffer)
	go func() { c, _ := l.get(); taken <- c }()
	select {
	case <-taken:
		t.Error("taken over the bound")
	default:
	}
	l.put(b, 0)
	if b = <-taken; deaf.Load() != 0 {
		t.Error("it counts as full after that")
	}
	l.hold(a, 1<<20)
	held := make(chan struct{})
	go func() { l.hold(b, 1); close(held) }()
	select {
	case <-held:
		t.Error("held over the bound")
	default:
	}
	l.put(a, 0)
	<-held
	if got, _ := l.get(); got != a {
		t.Error("the last one given back is not the first one taken")
	}
	l.put(b, 0)
	if n := l.heldNow(); n != 0 {
		t.Errorf("%d bytes held at rest", n)
	}
	l.free()
}
