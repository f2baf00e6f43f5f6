package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// monitor is a connection to QEMU's machine protocol.
type monitor struct {
	conn net.Conn
	in   *json.Decoder
}

// message is an answer or an event.
type message struct {
	Return any `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Status string `json:"status"`
	} `json:"data"`
}

// qmpMax bounds the wait for an answer to a command.
const qmpMax = time.Minute

// monitor connects, as soon as a QEMU that has just been started listens.
func (m *Machine) monitor() (*monitor, error) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	late := time.After(qmpMax)
	conn, err := net.Dial("unix", m.qmp)
	for err != nil {
		select {
		case <-again.C:
			conn, err = net.Dial("unix", m.qmp)
		case <-m.done:
			return nil, fmt.Errorf("QMP: QEMU has ended: %w\n%s", err, m.Console())
		case <-late:
			return nil, fmt.Errorf("QMP: %w", err)
		}
	}
	q := &monitor{conn, json.NewDecoder(conn)}
	if err = q.limit(qmpMax); err == nil {
		err = q.in.Decode(&message{}) // the greeting
	}
	if err == nil {
		err = q.do("qmp_capabilities", nil)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *monitor) limit(d time.Duration) error { return q.conn.SetDeadline(time.Now().Add(d)) }

// do gives a command and waits for the answer; events before it are skipped.
func (q *monitor) do(command string, arguments map[string]any) error {
	c := map[string]any{"execute": command}
	if arguments != nil {
		c["arguments"] = arguments
	}
	if err := json.NewEncoder(q.conn).Encode(c); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	for {
		var answer message
		switch err := q.in.Decode(&answer); {
		case err != nil:
			return fmt.Errorf("QMP %s: %w", command, err)
		case answer.Error != nil:
			return fmt.Errorf("QMP %s: %s", command, answer.Error.Desc)
		case answer.Return != nil:
			return nil
		}
	}
}

// QMP gives QEMU a command.
func (m *Machine) QMP(command string, arguments map[string]any) error {
	q, err := m.monitor()
	if err != nil {
		return err
	}
	defer q.conn.Close()
	return q.do(command, arguments)
}

// Migrate moves a running guest to another QEMU, which was started with Incoming, and
// returns when the guest runs there. The QEMU that it leaves is stopped for good.
func (m *Machine) Migrate(to *Machine, limit time.Duration) error {
	// It listens for the guest before it listens for commands.
	ready, err := to.monitor()
	if err != nil {
		return err
	}
	ready.conn.Close()
	q, err := m.monitor()
	if err != nil {
		return err
	}
	defer q.conn.Close()
	events := map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}}
	if err := q.do("migrate-set-capabilities", events); err != nil {
		return err
	}
	if err := q.do("migrate", map[string]any{"uri": to.incoming}); err != nil {
		return err
	}
	if err := q.limit(limit); err != nil {
		return err
	}
	for {
		var e message
		if err := q.in.Decode(&e); err != nil {
			return fmt.Errorf("migrate: no end of it within %v: %w", limit, err)
		}
		switch {
		case e.Event == "MIGRATION" && e.Data.Status == "completed":
			return nil
		case e.Event == "MIGRATION" && (e.Data.Status == "failed" || e.Data.Status == "cancelled"):
			_ = to.Wait(qmpMax) // for its last words
			return errors.New("migrate: " + e.Data.Status + "\n" + to.Console())
		}
	}
}
