// Child process of C and C++: make the calls that the file `calls` lists, each in a process of its
// own, and tell of each in the file `told`: place, input, bytes printed so far, the outcome.
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static char said_[6000];
static size_t said_length_;
static int told_;

// What the calls are: made for the versions and the function.
static void call_(int place, int input);
static void flush_(void);

static void say_(const char *format, ...) {
  va_list all;
  va_start(all, format);
  size_t room = sizeof said_ - said_length_ - 200;
  int length = room > 1000 ? vsnprintf(said_ + said_length_, room, format, all) : 0;
  va_end(all);
  if (length > 0) said_length_ += (size_t)length < room ? (size_t)length : room - 1;
}

static void tell_(int place, int input) {
  for (size_t at = 0; at < said_length_; at++)
    if (said_[at] == '\n' || said_[at] == '\0') said_[at] = '~';
  char head[60];
  sprintf(head, "%d %d %ld ", place, input, (long)lseek(1, 0, SEEK_END));
  char line[sizeof said_ + sizeof head];
  int length = snprintf(line, sizeof line, "%s%.*s\n", head, (int)said_length_, said_);
  if (write(told_, line, (size_t)length) < 0) _exit(3);
}

static void feed_(const char *text) {
  int ends[2];
  if (pipe(ends) || write(ends[1], text, strlen(text)) < 0) _exit(3);
  close(ends[1]);
  dup2(ends[0], 0);
}

// On the heap and of its own size, so that a sanitizer sees what lies outside.
static void *copied_(const void *from, size_t size) {
  return memcpy(malloc(size ? size : 1), from, size);
}

#ifdef __cplusplus
extern "C"
#endif
const char *__asan_default_options(void) {
  return "abort_on_error=1:detect_leaks=0:allocator_may_return_null=1:log_path=/dev/null";
}

int main(int count, char **arguments) {
  // Read at once: a child that exits would move the position of a file that is open here.
  static char calls[1 << 20];
  int file = open("calls", O_RDONLY);
  if (read(file, calls, sizeof calls - 1) < 0) return 3;
  close(file);
  long milliseconds = count > 1 ? atol(arguments[1]) : 100;
  told_ = open("told", O_WRONLY | O_APPEND);
  for (char *at = calls; *at; at++) {
    int place = (int)strtol(at, &at, 10), input = (int)strtol(at, &at, 10);
    said_length_ = 0;
    off_t before = lseek(told_, 0, SEEK_END);
    pid_t child = fork();
    if (child == 0) {
      struct itimerval limit = {{0, 0}, {milliseconds / 1000, milliseconds % 1000 * 1000}};
      setitimer(ITIMER_PROF, &limit, NULL);
      alarm(5 + milliseconds / 50);
      call_(place, input);
      flush_();
      tell_(place, input);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (lseek(told_, 0, SEEK_END) != before) continue;
    int ended = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (ended == SIGPROF || ended == SIGALRM || ended == SIGKILL) _exit(97);
    say_(ended ? "signal %d" : "exit %d", ended ? ended : WEXITSTATUS(status));
    tell_(place, input);
  }
  return 0;
}
