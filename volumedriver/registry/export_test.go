package registry

// EncodeFile makes the file of an older release.
var EncodeFile = encode
