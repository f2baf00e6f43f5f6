package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"openvstorage/internal/format"
)

func FuzzHead(f *testing.F) {
	f.Add(raw(head{kind: kindRequest, op: 3, id: 4, word: 5, header: 6, body: 100, piece: 50, flags: 1})[:44])
	f.Add(raw(head{kind: kindGoodbye, op: 3, header: 6})[:44])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 44 {
			return
		}
		b = binary.LittleEndian.AppendUint32(bytes.Clone(b[:44]), format.CRC(b[:44]))
		h, err := decodeHead(b)
		if err != nil {
			return
		}
		again := make([]byte, headSize)
		h.put(again)
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzPreface(f *testing.F) {
	p := preface{kind: hello, id: testIdentity(), text: "ovs-kv\x00abm"}
	(&Limits{Requests: 1, Body: 2}).announce(&p)
	f.Add(p.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < prefaceSize {
			return
		}
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint16(b[14:], uint16(len(b)-prefaceSize))
		binary.LittleEndian.PutUint32(b[prefaceSize-8:], format.CRC(b[prefaceSize:]))
		binary.LittleEndian.PutUint32(b[prefaceSize-4:], format.CRC(b[:prefaceSize-4]))
		p, err := readPreface(bytes.NewReader(b))
		if err != nil {
			return
		}
		q, err := readPreface(bytes.NewReader(p.append(nil)))
		if err != nil || p != q {
			t.Errorf("%+v became %+v: %v", p, q, err)
		}
		_, _, _ = p.names()
		_ = p.fits(&preface{})
	})
}

// FuzzServer gives a server frames whose heads have the right sums, and whatever else.
func FuzzServer(f *testing.F) {
	f.Add(raw(head{kind: kindRequest, id: 1, body: 5, piece: 3}, 1, 2, 3))
	f.Add(append(raw(head{kind: kindRequest, id: 1}), raw(head{kind: kindCancel, id: 1})...))
	f.Add(append(raw(head{kind: kindPing, id: 1}), raw(head{kind: kindGoodbye, op: 9})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		for at := 0; at+headSize <= len(b); { // let the sums be right
			h := b[at : at+headSize]
			copy(h, []byte{0x4f, 0x57, frameVersion})
			clear(h[40:44])
			n := int(binary.LittleEndian.Uint32(h[20:])%64) + int(binary.LittleEndian.Uint32(h[28:])%64)
			binary.LittleEndian.PutUint32(h[44:], format.CRC(h[:44]))
			at += headSize + n
		}
		l := newPipes()
		s := serve(t, l, ServerOptions{}, echo)
		c := stranger(t, l)
		over := make(chan struct{})
		go func() {
			defer close(over)
			buf := make([]byte, 4096)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		}()
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write(b)
		c.Close()
		<-over
		ctx, cancel := contextOf(t)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if st := s.Stats(); st.Conns != 0 || st.Requests != 0 || st.Memory != 0 {
			t.Errorf("%+v is left", st)
		}
	})
}

// The client side takes what a server sends with the same care.
func FuzzClient(f *testing.F) {
	f.Add(raw(head{kind: kindReply, id: 1, body: 3, piece: 3}, 1, 2, 3))
	f.Add(raw(head{kind: kindReply, id: 1, op: uint16(CodeBusy)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, z := net.Pipe()
		go func() {
			p, err := readPreface(z)
			if err != nil {
				return
			}
			p.kind, p.text = welcome, ""
			_, _ = z.Write(p.append(nil))
			_, _ = z.Read(make([]byte, headSize))
			_, _ = z.Write(b)
			z.Close()
		}()
		c := dial(t, DialOptions{Dial: pipeTo(a), Service: "ovs-kv", Identity: testIdentity()})
		ctx, cancel := contextOf(t)
		defer cancel()
		if r, err := c.Call(ctx, Request{Op: 1}); err == nil {
			r.Release()
		}
		c.Close()
	})
}
