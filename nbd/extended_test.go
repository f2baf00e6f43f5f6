package nbd_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// Extended headers: the handshake, and the frames byte by byte.

// frame makes bytes of hexadecimal digits with spaces in between; words in
// quotes are text.
func frame(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	for i, part := range strings.Split(text, `"`) {
		if i%2 == 1 {
			b = append(b, part...)
			continue
		}
		p, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			t.Fatalf("%s: %v", part, err)
		}
		b = append(b, p...)
	}
	return b
}

// exchange sends bytes and checks those of the answer.
func (r *raw) exchange(t *testing.T, what, send, want string) {
	t.Helper()
	r.send(frame(t, send)...)
	w := frame(t, want)
	if got := r.read(len(w)); !bytes.Equal(got, w) {
		t.Fatalf("%s: answer\n%x, want\n%x", what, got, w)
	}
}

func TestExtendedFrames(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).options()
	const (
		option = "49484156454f5054"
		reply  = "0003e889045565a9"
	)
	r.exchange(t, "EXTENDED_HEADERS", option+"0000000b 00000000", reply+"0000000b 00000001 00000000")
	r.exchange(t, "SET_META_CONTEXT", option+`0000000a 0000001f 00000004 "disk" 00000001 0000000f "base:allocation"`,
		reply+`0000000a 00000004 00000013 00000001 "base:allocation"`+reply+"0000000a 00000001 00000000")
	r.exchange(t, "GO", option+`00000007 0000000a 00000004 "disk" 0000`,
		reply+"00000007 00000003 0000000c 0000 0000000000100000 1ded"+
			reply+"00000007 00000003 0000000e 0003 00000001 00001000 02000000"+
			reply+"00000007 00000001 00000000")
	for _, test := range []struct{ what, send, want string }{
		{"WRITE with FUA", `21e41c71 0021 0001 a1a2a3a4a5a6a7a8 0000000000002000 0000000000000004 "data"`,
			"6e8a278c 0001 0000 a1a2a3a4a5a6a7a8 0000000000002000 0000000000000000"},
		{"READ", "21e41c71 0000 0000 0000000000000001 0000000000001ffe 0000000000000008",
			`6e8a278c 0001 0001 0000000000000001 0000000000001ffe 0000000000000010 0000000000001ffe 0000 "data" 0000`},
		{"READ of nothing", "21e41c71 0004 0000 0000000000000001 0000000000000001 0000000000000000",
			"6e8a278c 0001 0000 0000000000000001 0000000000000001 0000000000000000"},
		{"FLUSH", "21e41c71 0000 0003 0000000000000002 0000000000000000 0000000000000000",
			"6e8a278c 0001 0000 0000000000000002 0000000000000000 0000000000000000"},
		{"TRIM", "21e41c71 0001 0004 0000000000000003 0000000000080000 0000000000080000",
			"6e8a278c 0001 0000 0000000000000003 0000000000080000 0000000000000000"},
		{"WRITE_ZEROES with NO_HOLE", "21e41c71 0002 0006 0000000000000004 00000000000ff000 0000000000001000",
			"6e8a278c 0001 0000 0000000000000004 00000000000ff000 0000000000000000"},
		{"CACHE", "21e41c71 0000 0005 0000000000000005 0000000000000000 0000000000100000",
			"6e8a278c 0001 0000 0000000000000005 0000000000000000 0000000000000000"},
		{"BLOCK_STATUS", "21e41c71 0000 0007 0000000000000006 0000000000001000 00000000000ff000",
			`6e8a278c 0001 0006 0000000000000006 0000000000001000 0000000000000048 00000001 00000004
			 0000000000001000 0000000000000003   0000000000001000 0000000000000000
			 00000000000fc000 0000000000000003   0000000000001000 0000000000000000`},
		{"BLOCK_STATUS of one", "21e41c71 0008 0007 0000000000000006 0000000000002000 0000000000000001",
			`6e8a278c 0001 0006 0000000000000006 0000000000002000 0000000000000018 00000001 00000001
			 0000000000000001 0000000000000000`},
		{"BLOCK_STATUS that names its context", `21e41c71 0020 0007 0000000000000006 0000000000001000 000000000000000c
			 0000000000002000 00000001`,
			`6e8a278c 0001 0006 0000000000000006 0000000000001000 0000000000000028 00000001 00000002
			 0000000000001000 0000000000000003   0000000000001000 0000000000000000`},
		{"an error", "21e41c71 0000 0004 0000000000000008 00ffffffffffffff ffffffffffffffff",
			`6e8a278c 0001 8001 0000000000000008 00ffffffffffffff 000000000000002d 00000016 0027
			 "range goes beyond the end of the export"`},
		{"an error of BLOCK_STATUS that names another context", `21e41c71 0020 0007 0000000000000006 0000000000001000 000000000000000c
			 0000000000002000 00000002`,
			`6e8a278c 0001 8001 0000000000000006 0000000000001000 000000000000003f 00000016 0039
			 "block status may ask for context 1, base:allocation, once"`},
	} {
		r.exchange(t, test.what, test.send, test.want)
	}
	r.exchange(t, "DISC behind a flush", `21e41c71 0000 0003 0000000000000009 0000000000000000 0000000000000000
		21e41c71 0000 0002 0000000000000000 0000000000000000 0000000000000000`,
		"6e8a278c 0001 0000 0000000000000009 0000000000000000 0000000000000000")
	r.closed()
}

// TestOptionExtendedHeaders tries every order that matters. A handshake is a
// list of options with the last reply to each.
func TestOptionExtendedHeaders(t *testing.T) {
	type step struct {
		opt     nbd.Option
		payload []byte
		want    nbd.OptionReply
	}
	ext := step{nbd.OptExtendedHeaders, nil, nbd.RepAck}
	str := step{nbd.OptStructuredReply, nil, nbd.RepAck}
	late := step{nbd.OptStructuredReply, nil, nbd.RepErrExtHeaderReqd}
	meta := step{nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", nbd.BaseAllocation), nbd.RepAck}
	list := step{nbd.OptListMetaContext, nbdclient.MetaPayload("disk"), nbd.RepAck}
	junk := step{nbd.OptExtendedHeaders, []byte{0}, nbd.RepErrInvalid}
	vast := step{nbd.OptExtendedHeaders, make([]byte, 64<<10+1), nbd.RepErrTooBig}
	lone := step{nbd.OptSetMetaContext, meta.payload, nbd.RepErrInvalid}
	const df, filter = nbd.SendDF, nbd.BlockStatusPayload
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	for name, test := range map[string]struct {
		steps []step
		want  mode
		flags nbd.TransmissionFlags
	}{
		"alone":                 {[]step{ext}, extended, df},
		"twice":                 {[]step{ext, ext}, extended, df},
		"after structured":      {[]step{str, ext}, extended, df},
		"before structured":     {[]step{ext, late}, extended, df},
		"on both sides":         {[]step{str, ext, late, ext}, extended, df},
		"before the context":    {[]step{ext, meta}, extended, df | filter},
		"after the context":     {[]step{str, meta, ext}, extended, df | filter},
		"between contexts":      {[]step{str, meta, ext, list, meta, late}, extended, df | filter},
		"context without":       {[]step{lone, ext}, extended, df},
		"list":                  {[]step{ext, list}, extended, df},
		"refused for a payload": {[]step{junk, lone}, simple, 0},
		"refused for its size":  {[]step{vast, str, meta}, structured, df},
		"payload the 2nd time":  {[]step{ext, junk, meta}, extended, df | filter},
		"structured as ever":    {[]step{str, str, meta, junk}, structured, df},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.options()
			for i, step := range test.steps {
				if got := r.last(step.opt, step.payload); got != step.want {
					t.Fatalf("step %d, option %d: reply %#x, want %#x", i, step.opt, got, step.want)
				}
			}
			r.mode = test.want
			if e, err := r.Info("disk"); err != nil || e.Flags&filter != 0 != (test.want == extended) {
				t.Fatalf("flags of INFO are %#x, %v", e.Flags, err)
			}
			if e, err := r.Go("disk"); err != nil || e.Flags&(df|filter) != test.flags {
				t.Fatalf("flags are %#x, %v; want %#x of %#x", e.Flags, err, test.flags, df|filter)
			}
			r.request(nbd.CmdRead, 0, 4096, 100)
			if test.want == simple {
				if e := r.simple(); e != nbd.OK {
					t.Fatal(e)
				}
			} else if typ, p := r.chunk(); typ != nbd.ChunkOffsetData || len(p) != 108 {
				t.Fatalf("chunk %#x of %d bytes", typ, len(p))
			}
		})
	}
}

func TestExtendedHeadersNeedGo(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	r := s.options()
	r.ExtendedHeaders()
	r.Send(nbd.OptExportName, []byte("disk"))
	r.closed()
	r = s.dial() // knows no option replies
	r.Start(0)
	r.Send(nbd.OptExtendedHeaders, nil)
	r.closed()
}

func TestMagicOfTheOtherHeadersCloses(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	flush := nbd.Request{Type: nbd.CmdFlush, Cookie: 7}
	for m, wrong := range map[mode][]byte{
		extended: append(nbd.AppendRequest(nil, flush), 0, 0, 0, 0), structured: nbd.AppendExtendedRequest(nil, flush),
		simple: nbd.AppendExtendedRequest(nil, flush),
	} {
		r := s.transmit(m)
		r.request(nbd.CmdFlush, 0, 0, 0)
		if e := r.errno(); e != nbd.OK {
			t.Fatal(e)
		}
		r.send(wrong...)
		r.closed()
	}
}

func TestPayloadFlagWithoutExtendedHeaders(t *testing.T) {
	for _, m := range []mode{simple, structured} {
		r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).transmit(m)
		for range 2 {
			r.request(nbd.CmdWrite, nbd.FlagPayloadLen, 0, 100, make([]byte, 100)...)
			if e := r.errno(); e != nbd.EINVAL {
				t.Fatalf("%v: write: %v", m, e)
			}
			r.request(nbd.CmdTrim, nbd.FlagPayloadLen, 0, 100) // has no payload
			if e := r.errno(); e != nbd.EINVAL {
				t.Fatalf("%v: trim: %v", m, e)
			}
		}
	}
}

// TestPayloadThatIsNotWanted: it is read away, and the stream goes on.
func TestPayloadThatIsNotWanted(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).transmit(extended)
	for _, typ := range []nbd.Command{nbd.CmdRead, nbd.CmdFlush, nbd.CmdTrim, nbd.CmdCache, nbd.CmdWriteZeroes, nbd.CmdBlockStatus, 8, 0xffff} {
		for _, n := range []uint64{0, 1, 11, 13, 32, 200 << 10, nbd.MaxPayload} {
			go r.send(r.frame(typ, nbd.FlagPayloadLen, 0, n, make([]byte, n)...)...)
			if e := r.errno(); e != nbd.EINVAL {
				t.Fatalf("%v with %d bytes: %v", typ, n, e)
			}
		}
	}
	r.request(nbd.CmdFlush, 0, 0, 0)
	if e := r.errno(); e != nbd.OK {
		t.Fatal(e)
	}
}

func TestPayloadBeyondTheMostCloses(t *testing.T) {
	s := serve(t, nbdtest.NewVast(1<<50), nbd.Limits{})
	for _, typ := range []nbd.Command{nbd.CmdWrite, nbd.CmdTrim, nbd.CmdBlockStatus, 99} {
		for _, n := range []uint64{nbd.MaxPayload + 1, 1 << 32, 1<<32 + 4, 1 << 63, 1<<64 - 1} {
			r := s.transmit(extended)
			r.request(typ, nbd.FlagPayloadLen, 0, n)
			r.closed()
		}
	}
}

// TestWriteWithoutThePayloadFlag: QEMU up to 10.0 sends such writes once extended
// headers are agreed on. Their length is that of the payload all the same. The
// flag is an error nowhere else than before, and the stream goes on.
func TestWriteWithoutThePayloadFlag(t *testing.T) {
	dev := nbdtest.NewMemory(64 << 20)
	s := serve(t, dev, nbd.Limits{})
	r := s.transmit(extended)
	write := func(off uint64, flags nbd.CommandFlags, n int) {
		r.offset = off
		req := nbd.Request{Type: nbd.CmdWrite, Flags: flags, Cookie: 7, Offset: off, Length: uint64(n)}
		go r.send(append(nbd.AppendExtendedRequest(nil, req), bytes.Repeat([]byte{byte(n) | 1}, n)...)...)
	}
	for i, n := range []int{0, 1, 4096, 65535, 65536, 1 << 20, 1<<20 + 1, nbd.MaxPayload} {
		for _, flags := range []nbd.CommandFlags{0, nbd.FlagFUA, nbd.FlagPayloadLen} {
			off := uint64(i * 4096)
			write(off, flags, n)
			if e := r.errno(); e != nbd.OK {
				t.Fatalf("%d bytes, flags %#x: %v", n, flags, e)
			}
			p := make([]byte, n)
			if err := dev.Read(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(n) | 1}, n)) {
				t.Fatalf("%d bytes, flags %#x: they are not there, %v", n, flags, err)
			}
		}
	}
	// What is refused is read away.
	write(64<<20, 0, 100)
	if e := r.errno(); e != nbd.ENOSPC {
		t.Fatalf("beyond the end: %v", e)
	}
	write(0, nbd.FlagDF, 200<<10)
	if e := r.errno(); e != nbd.EINVAL {
		t.Fatalf("a flag of other commands: %v", e)
	}
	write(0, 0, nbd.MaxPayload+1)
	if e := r.errno(); e != nbd.EINVAL {
		t.Fatalf("over 32 MiB: %v", e)
	}
	r.request(nbd.CmdFlush, 0, 0, 0)
	if e := r.errno(); e != nbd.OK {
		t.Fatal(e)
	}
	write(0, 0, 1) // and one that nobody can mean ends the connection
	r.errno()
	r.send(nbd.AppendExtendedRequest(nil, nbd.Request{Type: nbd.CmdWrite, Cookie: 7, Length: 1 << 40})...)
	r.closed()
	ro := serve(t, nbdtest.ReadOnly(nbdtest.Holding(make([]byte, testSize))), nbd.Limits{}).transmit(extended)
	for range 2 {
		ro.send(append(nbd.AppendExtendedRequest(nil, nbd.Request{Type: nbd.CmdWrite, Cookie: 7, Length: 4096}), make([]byte, 4096)...)...)
		if e := ro.errno(); e != nbd.EPERM {
			t.Fatalf("read-only: %v", e)
		}
	}
}

// TestBlockStatusThatNamesContexts: there is one, and it may be named once.
func TestBlockStatusThatNamesContexts(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	payload := func(n uint64, ids ...uint32) []byte {
		b := binary.BigEndian.AppendUint64(nil, n)
		for _, id := range ids {
			b = binary.BigEndian.AppendUint32(b, id)
		}
		return b
	}
	r := s.transmit(extended)
	for _, test := range []struct {
		payload []byte
		want    nbd.Errno
	}{
		{payload(4096, 1), nbd.OK},
		{payload(testSize, 1), nbd.OK},
		{payload(4096), nbd.EINVAL},
		{payload(4096, 0), nbd.EINVAL},
		{payload(4096, 2), nbd.EINVAL},
		{payload(4096, 1, 1), nbd.EINVAL},
		{payload(4096, 1, 2), nbd.EINVAL},
		{payload(4096, 1)[:11], nbd.EINVAL},
		{payload(4096)[:7], nbd.EINVAL},
		{nil, nbd.EINVAL},
		{payload(0, 1), nbd.EINVAL},
		{payload(testSize+1, 1), nbd.EINVAL},
		{payload(1<<64-1, 1), nbd.EINVAL},
		{payload(4096, 1), nbd.OK},
	} {
		// Byte by byte: the server must wait for the payload.
		for _, b := range r.frame(nbd.CmdBlockStatus, nbd.FlagPayloadLen, 0, uint64(len(test.payload)), test.payload...) {
			r.send(b)
		}
		typ, p := r.chunk()
		if test.want == nbd.OK && (typ != nbd.ChunkBlockStatusExt || len(p) != 24) {
			t.Errorf("%x: chunk %#x %x", test.payload, typ, p)
		}
		if test.want != nbd.OK && (typ != nbd.ChunkError || nbd.Errno(binary.BigEndian.Uint32(p)) != test.want) {
			t.Errorf("%x: chunk %#x %x, want %v", test.payload, typ, p, test.want)
		}
	}
	r = s.options()
	r.mode = extended
	r.ExtendedHeaders()
	r.Go("disk")
	r.request(nbd.CmdBlockStatus, nbd.FlagPayloadLen, 0, 12, payload(4096, 1)...)
	if e := r.errno(); e != nbd.EINVAL {
		t.Fatalf("without a context: %v", e)
	}
}

// TestClientAndExtendedReplies: what the client takes, and what breaks the
// connection: then the other requests fail too.
func TestClientAndExtendedReplies(t *testing.T) {
	const trim = " 6e8a278c 0001 0000 0000000000000002 0000010000000000 0000000000000000"
	hole, data := device.Extent{Length: 4096, Hole: true, Zero: true}, device.Extent{Length: 1 << 45}
	for _, test := range []struct {
		what, in string
		extents  []device.Extent
		broken   bool
	}{
		{"count", "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000000000028 00000001 00000002 " +
			"0000000000001000 0000000000000003 0000200000000000 0000000000000000" + trim, []device.Extent{hole, data}, false},
		{"no count", "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000000000028 00000001 00000000 " +
			"0000000000001000 0000000000000003 0000200000000000 ffffffff00000000" + trim, []device.Extent{hole, data}, false},
		{"wrong count", "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000000000018 00000001 00000002 " +
			"0000000000001000 0000000000000003" + trim, nil, true},
		{"the 32-bit form", "6e8a278c 0001 0005 0000000000000001 0000000000000000 000000000000000c 00000001 00001000 00000003" + trim, []device.Extent{hole}, false},
		{"not whole", "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000000000010 00000001 00000000 0000000000001000" + trim, nil, true},
		{"an extent too long", "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000000000018 00000001 00000001 " +
			"8000000000000000 0000000000000003" + trim, nil, true},
		{"a payload too long", "6e8a278c 0001 0006 0000000000000001 0000000000000000 0000000100000018 00000001 00000001" + trim, nil, true},
		{"a reply of another offset", "6e8a278c 0001 0000 0000000000000002 0000000000000000 0000000000000000", nil, true},
		{"an unknown cookie", "6e8a278c 0001 0000 0000000000000003 0000010000000000 0000000000000000" + trim, nil, true},
		{"a simple reply", "67446698 00000000 0000000000000002" + trim, nil, true},
		{"a structured reply", "668e33ef 0001 0000 0000000000000002 00000000" + trim, nil, true},
	} {
		_, status, last := converse(t, extended, frame(t, test.in))
		if !slices.Equal(status.Extents, test.extents) || (status.Err == nil) != (test.extents != nil) || (last.Err != nil) != test.broken {
			t.Errorf("%s: extents %+v, %v; trim: %v", test.what, status.Extents, status.Err, last.Err)
		}
	}
}
