// Package osdtest is for tests of and with OSDs: [Run] is the conformance
// suite that every OSD must pass, [Memory] a model of one in memory, and
// [Faulty] a decorator that makes one fail, wait or lie.
package osdtest
