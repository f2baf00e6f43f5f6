package arakoon

import (
	"fmt"
	"log/slog"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// confChangeOf decodes a change of the members, of either type that raft has for one.
func confChangeOf(e *pb.Entry) (pb.ConfChangeI, error) {
	if e.GetType() == pb.EntryConfChange {
		cc := new(pb.ConfChange)
		return cc, proto.Unmarshal(e.GetData(), cc)
	}
	cc := new(pb.ConfChangeV2)
	return cc, proto.Unmarshal(e.GetData(), cc)
}

// logger passes raft's messages on. A fatal one panics, and shutdown.run() makes a
// failed node of the panic: one member must not end the process.
type logger struct{ *slog.Logger }

func (l logger) Debug(v ...any)                   { l.Logger.Debug(fmt.Sprint(v...)) }
func (l logger) Debugf(format string, v ...any)   { l.Logger.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Info(v ...any)                    { l.Logger.Debug(fmt.Sprint(v...)) }
func (l logger) Infof(format string, v ...any)    { l.Logger.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Warning(v ...any)                 { l.Logger.Warn(fmt.Sprint(v...)) }
func (l logger) Warningf(format string, v ...any) { l.Logger.Warn(fmt.Sprintf(format, v...)) }
func (l logger) Error(v ...any)                   { l.Logger.Error(fmt.Sprint(v...)) }
func (l logger) Errorf(format string, v ...any)   { l.Logger.Error(fmt.Sprintf(format, v...)) }
func (l logger) Fatal(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l logger) Fatalf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
func (l logger) Panic(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l logger) Panicf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
