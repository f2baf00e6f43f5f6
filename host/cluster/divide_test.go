package cluster

import (
	"io"
	"net"
	"testing"
)

// Each connection goes to the server that its first byte names, which reads all of it. One
// that says nothing holds up nobody, and none is left when a half is closed.
func TestDivide(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := divide(l)
	done := make(chan struct{})
	go func() { d.run(); close(done) }()
	dial := func(say string) net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(say)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	silent := dial("")
	defer silent.Close()
	for _, one := range []struct {
		say string
		at  *half
	}{{"OVSWIRE1", d.plain}, {"\x16\x03\x01", d.tls}} {
		c := dial(one.say)
		got, err := one.at.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(one.say))
		if _, err := io.ReadFull(got, b); err != nil || string(b) != one.say {
			t.Errorf("%q, %v", b, err)
		}
		_, _ = got.Close(), c.Close()
	}
	_ = d.tls.Close()
	<-done
	if _, err := d.plain.Accept(); err == nil {
		t.Error("the other half goes on")
	}
	if n, err := silent.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a connection that said nothing is left")
	}
}

// What is sent as keys and values is read as such, and what is cut off is refused.
func FuzzPairs(f *testing.F) {
	f.Add(appendPair(appendPair(nil, []byte("a"), []byte("1")), []byte("b"), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		if err := pairs(b, func(k, v []byte) bool { again = appendPair(again, k, v); return true }); err == nil && string(again) != string(b) {
			t.Errorf("%x is read as %x", b, again)
		}
	})
}
