// What every unit of C++ begins with: the standard library, and how values are shown.
#include <bits/stdc++.h>
#include "call.h"
using namespace std;

static void flush_(void) {
  std::cout.flush();
  std::fflush(stdout);
}

static void show_(bool x) { say_("%d", (int)x); }
static void show_(char x) { say_("'%c'", x); }
static void show_(double x) { say_("%.17g", x); }
static void show_(float x) { say_("%.9g", (double)x); }
static void show_(long double x) { say_("%.17Lg", x); }
template <class T> typename std::enable_if<std::is_integral<T>::value>::type show_(T x) {
  if (std::is_signed<T>::value) say_("%lld", (long long)x);
  else say_("%llu", (unsigned long long)x);
}
static void show_(const char *x) { say_("%s", x ? x : "null"); }
static void show_(char *x) { say_("%s", x ? x : "null"); }
static void show_(const std::string &x) { say_("\"%s\"", x.c_str()); }
template <class T> void show_(T *x) { say_(x ? "pointer" : "null"); }
template <class A, class B> void show_(const std::pair<A, B> &x);
template <class... T> void show_(const std::tuple<T...> &x);
template <class T> auto show_(const T &x) -> decltype(x.begin(), x.end(), void());
template <class A, class B> void show_(const std::pair<A, B> &x) {
  show_(x.first);
  say_(": ");
  show_(x.second);
}
template <class... T> void show_(const std::tuple<T...> &x) {
  std::apply([](const auto &...each) { ((show_(each), say_(", ")), ...); }, x);
}
template <class T> auto show_(const T &x) -> decltype(x.begin(), x.end(), void()) {
  say_("{");
  for (const auto &each : x) {
    show_(each);
    say_(", ");
  }
  say_("}");
}


template <class Function, class... Given> void report_(Function function, Given &&...given) {
  if constexpr (std::is_void<decltype(function(given...))>::value) {
    function(given...);
    say_("void");
  } else {
    show_(function(given...));
  }
}
