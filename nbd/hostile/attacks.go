package hostile

import (
	"bytes"
	"encoding/binary"
	"io"

	"openvstorage/nbd"
)

// request is a request as it is sent, without a payload.
func request(typ nbd.Command, length uint64) []byte {
	return nbd.AppendRequest(nil, nbd.Request{Type: typ, Length: length})
}

// repeated sends the same request n times.
func (l *link) repeated(n int, req []byte) error {
	var all []byte
	for range n {
		all = append(all, req...)
	}
	_, err := l.Write(all)
	return err
}

// sends opens a connection and sends something.
func sends(n int, req []byte) func(*link, Target) error {
	return func(l *link, t Target) error {
		if err := l.transmit(t); err != nil {
			return err
		}
		return l.repeated(n, req)
	}
}

func sendByte(l *link) error { return l.put([]byte{0}) }
func readByte(l *link) error { return l.take(make([]byte, 1)) }

var attacks = []Attack{
	{
		Name: "heads", Connections: 34,
		About: "the head of a write of 32 MiB, and a byte of it now and then",
		open:  sends(1, request(nbd.CmdWrite, nbd.MaxPayload)),
		nag:   sendByte,
	}, {
		Name: "begun", Connections: 200,
		About: "a third of a MiB of a write of 32 MiB, and a byte more now and then",
		open:  sends(1, append(request(nbd.CmdWrite, nbd.MaxPayload), make([]byte, 320<<10)...)),
		nag:   sendByte,
	}, {
		Name: "parts", Connections: 500,
		About: "half of a request that would fit the receive buffer, and a byte more now and then",
		open:  sends(1, append(request(nbd.CmdWrite, 60<<10), make([]byte, 30<<10)...)),
		nag:   sendByte,
	}, {
		Name: "unread", Connections: 34,
		About: "two reads of 32 MiB, whose replies are taken byte by byte",
		open:  sends(2, request(nbd.CmdRead, nbd.MaxPayload)),
		nag:   readByte,
	}, {
		Name: "unread-small", Connections: 200,
		About: "256 reads of 64 KiB, whose replies are taken byte by byte",
		open:  sends(256, request(nbd.CmdRead, 64<<10)),
		nag:   readByte,
	}, {
		Name: "unread-tiny", Connections: 200,
		About: "short reads one by one, whose replies nobody takes",
		open:  sends(1000, request(nbd.CmdRead, 1)),
		nag:   func(l *link) error { return l.put(append(request(nbd.CmdRead, 1), request(nbd.CmdRead, 512)...)) },
	}, {
		Name: "status", Connections: 142,
		About: "256 questions about a chequered disk; the answers are read, then nothing",
		open:  askStatus,
	}, {
		Name: "unread-status", Connections: 142,
		About: "256 questions about a chequered disk, whose answers are taken byte by byte",
		open:  sends(256, request(nbd.CmdBlockStatus, nbd.MaxPayload)),
		nag:   readByte,
	}, {
		Name: "silent", Connections: 1024,
		About: "connections without a word",
		open:  func(l *link, _ Target) error { return l.greeting() },
	}, {
		Name: "options", Connections: 1024,
		About: "the head of an option of 64 KiB, and a byte of it now and then",
		open:  startOption,
		nag:   sendByte,
	}, {
		Name: "tls-silent", Connections: 1024, TLS: true,
		About: "STARTTLS, and then nothing",
		open:  startTLS(nil),
	}, {
		Name: "tls-half", Connections: 1024, TLS: true,
		About: "STARTTLS and most of the longest hello, and a byte more now and then",
		open:  startTLS(halfHello()),
		nag:   sendByte,
	}, {
		Name: "tls-garbage", Connections: 1024, TLS: true,
		About: "STARTTLS and what is no TLS, again and again",
		open:  startTLS(bytes.Repeat([]byte{0xa5}, 4<<10)),
	}, {
		Name: "idle", Connections: 1024, Stays: true,
		About: "connections that are through with the handshake and do nothing",
		open:  sends(0, nil),
	}, {
		Name: "metrics", Connections: 2048, Metrics: true,
		About: "connections to the metrics port without a word",
		open:  func(*link, Target) error { return nil },
	}, {
		Name: "churn", Connections: 20,
		About: "clients that die in the middle of their requests, again and again",
		open:  sends(2, request(nbd.CmdRead, 1<<20)),
		nag: func(l *link) error {
			_ = l.put(append(request(nbd.CmdWrite, nbd.MaxPayload), make([]byte, 64<<10)...))
			l.reset()
			return io.EOF
		},
	},
}

// askStatus reads all answers.
func askStatus(l *link, t Target) error {
	const questions = 256
	if err := l.transmit(t); err != nil {
		return err
	}
	if err := l.repeated(questions, request(nbd.CmdBlockStatus, nbd.MaxPayload)); err != nil {
		return err
	}
	p := make([]byte, 64<<10)
	for range questions {
		if _, err := io.ReadFull(l, p[:nbd.ChunkLen]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(p[nbd.ChunkLen-4:])
		if _, err := io.ReadFull(l, p[:min(int(n), len(p))]); err != nil {
			return err
		}
	}
	return nil
}

// startOption leaves an option of the greatest length in the middle.
func startOption(l *link, _ Target) error {
	if err := l.greeting(); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(nbd.FlagFixedNewstyle|nbd.FlagNoZeroes))
	_, err := l.Write(append(b, nbd.AppendOption(nil, nbd.OptGo, make([]byte, 64<<10))[:nbd.OptionHeaderLen+100]...))
	return err
}

// startTLS asks for TLS, and sends something when it may begin.
func startTLS(then []byte) func(*link, Target) error {
	return func(l *link, _ Target) error {
		if err := l.greeting(); err != nil {
			return err
		}
		b := binary.BigEndian.AppendUint32(nil, uint32(nbd.FlagFixedNewstyle|nbd.FlagNoZeroes))
		if _, err := l.Write(nbd.AppendOption(b, nbd.OptStartTLS, nil)); err != nil {
			return err
		}
		if _, err := io.ReadFull(l, make([]byte, nbd.OptionReplyHeaderLen)); err != nil {
			return err
		}
		_, err := l.Write(then)
		return err
	}
}

// halfHello is the beginning of a ClientHello of 60 KiB, in records of TLS: most of what a server
// reads before it knows the client.
func halfHello() []byte {
	const message, sent, record = 60 << 10, 23 << 10, 16 << 10
	hello := append([]byte{1, 0, message >> 8, message & 0xff, 3, 3}, make([]byte, sent)...)
	var b []byte
	for len(hello) > 0 {
		n := min(len(hello), record)
		b = append(b, 22, 3, 1, byte(n>>8), byte(n))
		b, hello = append(b, hello[:n]...), hello[n:]
	}
	// The record that the bytes to come are in.
	return append(b, 22, 3, 1, record>>8, 0)
}

// greeting reads the first words of a server.
func (l *link) greeting() error {
	var p [18]byte
	_, err := io.ReadFull(l, p[:])
	return err
}
