package api

import "net/http"

// stream answers with what write writes, while it does. An error before the first
// byte is answered as any other.
func stream(w http.ResponseWriter, contentType string, write func(*flushWriter) error) error {
	out := &flushWriter{w: w, control: http.NewResponseController(w), contentType: contentType}
	err := write(out)
	if err == nil {
		_, err = out.Write(nil)
	}
	if err != nil && out.begun {
		// Too late for an error answer: cut the connection, so that the client does
		// not take what it has for all there is.
		panic(http.ErrAbortHandler)
	}
	return err
}

// flushWriter sends everything at once, and the header with the first of it.
type flushWriter struct {
	w           http.ResponseWriter
	control     *http.ResponseController
	contentType string
	begun       bool
}

func (f *flushWriter) Write(b []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.w.Header().Set("Content-Type", f.contentType)
		f.w.WriteHeader(http.StatusOK)
	}
	n, err := f.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, f.control.Flush()
}
