package nbd_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// FuzzStartTLS plays bytes of a client to a server that requires TLS. As nobody can guess keys,
// nothing but words about TLS may be answered in plain text, and no export opened.
func FuzzStartTLS(f *testing.F) {
	opt := func(opt nbd.Option, payload []byte) []byte { return nbd.AppendOption(nil, opt, payload) }
	clientHello := []byte{22, 3, 1, 0, 4, 1, 0, 0, 0}
	for _, parts := range [][][]byte{
		{hello, opt(nbd.OptStartTLS, nil)},
		{hello, opt(nbd.OptStartTLS, nil), clientHello},
		{hello, opt(nbd.OptStartTLS, nil), opt(nbd.OptGo, nbdclient.InfoPayload("disk"))},
		{hello, opt(nbd.OptStartTLS, []byte("x")), opt(nbd.OptStructuredReply, nil), opt(nbd.OptStartTLS, nil)},
		{hello, opt(nbd.OptGo, nbdclient.InfoPayload("disk")), opt(nbd.OptList, nil), opt(99, make([]byte, 70000)), opt(nbd.OptAbort, nil)},
		{hello, opt(nbd.OptExportName, []byte("disk"))},
		{{0, 0, 0, 0}, opt(nbd.OptStartTLS, nil)},
	} {
		f.Add(bytes.Join(parts, nil))
	}
	config := nbdtest.NewCA(f).ServerTLS()
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := nbd.NewServer(nbdtest.Exports{"disk": nbdtest.NewMemory(64 << 10)}, nbd.Options{
			Limits: nbd.Limits{DrainTimeout: time.Hour},
			TLS:    nbd.TLS{Config: func() (*tls.Config, error) { return config, nil }, Authorize: whoever},
		})
		if err != nil {
			t.Fatal(err)
		}
		c := &script{in: bytes.NewReader(in)}
		_ = s.ServeConnTLS(c, nbd.TLSRequired) // any error but no panic
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.Held != st.IdleBytes || st.Connections != 0 {
			t.Fatalf("leaked: %+v", st)
		}
		out := c.out.Bytes()[18:]
		for len(out) >= nbd.OptionReplyHeaderLen && binary.BigEndian.Uint64(out) == nbd.OptionReplyMagic {
			o, typ := nbd.Option(binary.BigEndian.Uint32(out[8:])), nbd.OptionReply(binary.BigEndian.Uint32(out[12:]))
			if typ == nbd.RepAck && o != nbd.OptStartTLS && o != nbd.OptAbort || typ>>31 == 0 && typ != nbd.RepAck {
				t.Fatalf("option %d is answered with %d in plain text", o, typ)
			}
			out = out[nbd.OptionReplyHeaderLen+int(binary.BigEndian.Uint32(out[16:])):]
		}
		// What may follow is an alert of TLS, or the server's part of its handshake.
		if len(out) > 0 && out[0] != 21 && out[0] != 22 {
			t.Fatalf("%x in plain text", out)
		}
	})
}
